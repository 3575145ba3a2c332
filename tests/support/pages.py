"""What a browser makes of a page: whether it fits a screen, whether its words can be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

#: Finds every text that can be seen, with its WCAG contrast to what lies behind it.
CONTRASTS = """() => {
  const channels = colour => colour.match(/[\\d.]+/g).map(Number);
  const luminance = colour => {
    const [r, g, b] = channels(colour).slice(0, 3).map(value => value / 255)
      .map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = element => {
    for (let one = element; one; one = one.parentElement) {
      const colour = getComputedStyle(one).backgroundColor;
      const [, , , alpha = 1] = channels(colour);
      if (alpha === 1) return colour;
      if (alpha > 0) throw new Error(`half transparent: ${one.outerHTML.slice(0, 80)}`);
    }
    return matchMedia("(prefers-color-scheme: dark)").matches ? "rgb(0,0,0)" : "rgb(255,255,255)";
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim();
    const element = walker.currentNode.parentElement;
    if (!text || !element.checkVisibility()) continue;
    const [a, b] = [getComputedStyle(element).color, behind(element)].map(luminance);
    found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), text.slice(0, 60)]);
  }
  return found;
}"""
#: Elements that stick out of the window at the right, and not out of a box that hides or scrolls.
STICKING_OUT = """() => [...document.querySelectorAll("body *")]
  .filter(element => element.checkVisibility())
  .filter(element => element.getBoundingClientRect().right > innerWidth + 0.5)
  .filter(element => {
    for (let one = element.parentElement; one; one = one.parentElement)
      if (getComputedStyle(one).overflowX !== "visible") return false;
    return true;
  })
  .map(element => element.outerHTML.slice(0, 100))"""
#: Tables that have to be scrolled sideways.
SCROLLING = """() => [...document.querySelectorAll(".scroll")]
  .filter(region => region.scrollWidth > region.clientWidth)
  .map(region => region.ariaLabel)"""


def opened(browser: Any, path: Path, width: int, scheme: str = "light") -> Any:
    """A page with all its details open, in a window of this width."""
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.goto(path.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
    return page


def too_wide(page: Any) -> list[str]:
    """What makes the page wider than its window."""
    wide = page.evaluate("document.documentElement.scrollWidth > innerWidth")
    return [*page.evaluate(STICKING_OUT), *(["the page scrolls sideways"] if wide else [])]


def pale(page: Any, least: float = 4.5) -> list[tuple[float, str]]:
    """Texts whose contrast is less than WCAG 2.2 asks for at level AA (1.4.3)."""
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) > 20
    return [(ratio, text) for ratio, text in contrasts if ratio < least]
