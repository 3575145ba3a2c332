"use strict";
// Without this the page works too, by its button; with it an image can be dropped or pasted.
(() => {
  const form = document.getElementById("ask");
  const field = document.getElementById("image");
  const status = document.getElementById("status");
  const answer = document.getElementById("answer");
  const largest = Number(form.dataset.megabytes) * 1e6;
  let latest = 0;
  document.documentElement.classList.add("scripted");

  const problem = text => {
    const box = document.createElement("div");
    box.className = "warnings";
    box.append(Object.assign(document.createElement("h2"), { textContent: "No answer" }));
    box.append(Object.assign(document.createElement("p"), { textContent: text }));
    answer.replaceChildren(box);
    status.textContent = `No answer. ${text}`;
    status.classList.add("heard");
  };

  const ask = async file => {
    const mine = ++latest;
    if (file.size > largest) {
      problem(`This file is too large; at most ${form.dataset.megabytes} MB are accepted.`);
      return;
    }
    status.textContent = `Predicting ${file.name} …`;
    status.classList.remove("heard"); // what the answer says is there to be seen below
    answer.setAttribute("aria-busy", "true");
    const data = new FormData();
    data.append("image", file);
    try {
      const response = await fetch("/", {
        method: "POST", body: data, headers: { "X-Answer-Only": "yes" },
      });
      const page = new DOMParser().parseFromString(await response.text(), "text/html");
      if (mine !== latest) return; // another image was given meanwhile
      answer.replaceChildren(...page.getElementById("answer").childNodes);
      status.textContent = page.getElementById("status").textContent;
      status.classList.add("heard");
    } catch {
      if (mine === latest) problem("The program does not respond. Is it still running in its terminal?");
    } finally {
      if (mine === latest) answer.removeAttribute("aria-busy");
    }
  };

  const given = transfer => {
    const file = transfer?.files?.[0];
    if (file) {
      form.reset();
      ask(file);
    }
    return Boolean(file);
  };

  form.addEventListener("submit", event => {
    event.preventDefault();
    if (field.files.length) ask(field.files[0]);
  });
  field.addEventListener("change", () => { if (field.files.length) ask(field.files[0]); });
  for (const name of ["dragenter", "dragover"])
    document.addEventListener(name, event => {
      event.preventDefault();
      form.classList.add("over");
    });
  document.addEventListener("dragleave", event => {
    if (!event.relatedTarget) form.classList.remove("over");
  });
  document.addEventListener("drop", event => {
    event.preventDefault();
    form.classList.remove("over");
    if (!given(event.dataTransfer)) problem("This is not a file. Drop an image file.");
  });
  document.addEventListener("paste", event => { if (given(event.clipboardData)) event.preventDefault(); });

  answer.addEventListener("change", event => {
    if (event.target.id !== "explained") return;
    for (const one of answer.querySelectorAll("[data-explains]"))
      one.hidden = one.dataset.explains !== event.target.value;
  });
})();
