"""Commands as people, scripts and cats on keyboards type them; hypothesis strategies."""

from __future__ import annotations

from dataclasses import fields

from hypothesis import strategies as st

from melanoma_lab.config.schema import Audit, Config, Task
from melanoma_lab.config.schema.tracking import Tracking
from melanoma_lab.config.schema.training import Training
from melanoma_lab.registry import OPTIONS

PLAIN = {"audit": Audit, "training": Training, "tracking": Tracking}
GROUPS = sorted({group for group, _ in OPTIONS})
KEYS = sorted(
    {entry.name for entry in fields(Config)}
    | {f"{group}.{entry.name}" for (group, _), node in OPTIONS.items() for entry in fields(node)}
    | {f"{name}.{entry.name}" for name, node in PLAIN.items() for entry in fields(node)}
    | {"dataset.columns.image", "dataset.diagnoses.mel", "experiment", "hydra.job.name"}
)  # fmt: skip
#: What lies outside the working folder is not to be written to, so Hydra's own folders are left.
FOREIGN = ("hydra.verbose", "hydra.job.num", "hydra.mode", "hydra/launcher", "hydra/help", "schema")

names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12)
words = st.sampled_from([*KEYS, *GROUPS, *FOREIGN, *(name for _, name in OPTIONS), *map(str, Task)])
misspelt = st.builds(
    lambda word, at, letter: word[: at % len(word)] + letter + word[at % len(word) + 1 :],
    words, st.integers(0, 40), st.sampled_from(["", "x", ".", "é", "..", "@", "/", ":"]),
)  # fmt: skip
keys = st.one_of(words, words, misspelt, names)

scalars = st.one_of(
    st.integers(-3, 100).map(str),
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(
        [
            "null",
            "true",
            "False",
            "yes",
            "",
            "''",
            '""',
            "nan",
            "inf",
            "1e999",
            "1" * 5000,
            "0x1F",
            "-0",
            "1_000",
            "'a b'",
            "a b",
            "'it''s'",
            '"',
            "'",
            "\\",
            "\\'",
            "é",
            "😀",
            "\x00",
            "\n",
            "???",
            "..",
            "/",
            "a/b",
            "C:\\data",
            "~",
            "a=b",
            "a,b",
            "a:b",
            "%s",
            "{}",
            "$",
            "#x",
            "*",
            "sqlite:///x.db",
            "http://[",
            "mlruns",
            "n" * 300,
            "../../x",
            "nan",
            "😀" * 80,
        ]
    ),
    words,
    names,
)
interpolations = st.one_of(
    keys.map(lambda key: f"${{{key}}}"),
    st.sampled_from(
        [
            "${",
            "${}",
            "${oc.env:X}",
            "${oc.env:HOME}",
            "${oc.env:X,1}",
            "${oc.env:X,null}",
            "${seed}",
            "${study}",
            "${.seed}",
            "${..seed}",
            "${dataset}",
            "${dataset.classes}",
            "${oc.decode:'1'}",
            "${oc.create:{a:1}}",
            "${oc.select:nothing}",
            "${nobody:1}",
            "${now:%Y}",
            "${now:}",
            "${hydra:job.num}",
            "${hydra:nothing}",
            "a${seed}b",
            "\\${seed}",
            "'${seed}'",
            "[${seed}]",
            "${oc.deprecated:seed}",
            "${oc.dict.keys:dataset}",
            "${${seed}}",
        ]
    ),
)
values = st.recursive(
    scalars | interpolations,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{','.join(items)}]"),
        st.lists(st.tuples(keys, inner), max_size=3).map(
            lambda items: f"{{{','.join(f'{key}:{value}' for key, value in items)}}}"
        ),
        st.lists(inner, min_size=2, max_size=3).map(",".join),  # a sweep, or a mistake
        inner.map(lambda value: f"choice({value})"),
        inner.map(lambda value: f"int({value})"),
        st.just("range(0,3)"),
        st.just("interval(0,1)"),
        inner.map(lambda value: f"glob({value})"),
    ),
    max_leaves=5,
)

#: What is likely meant and often almost right.
plausible = st.one_of(
    st.sampled_from(sorted(OPTIONS)).map("=".join),
    st.sampled_from(["baseline", "dropout", "augmented", "dropout_sgd", "nothing"]).map(
        lambda preset: f"+experiment={preset}"
    ),
    st.builds("{}={}".format, st.sampled_from(KEYS), st.integers(-1, 50)),
    st.builds("{}={}".format, st.sampled_from(KEYS), scalars),
)
overrides = st.one_of(
    plausible,
    plausible,
    st.builds(
        "{}{}={}".format, st.sampled_from(["", "", "+", "++", "~", "+++", "-"]), keys, values
    ),
    st.builds("~{}".format, keys),
    st.builds("{}@{}={}".format, keys, keys, names),
    names,
    values,
)
flags = st.sampled_from(
    [
        "-m",
        "--multirun",
        "--cfg=job",
        "--cfg=hydra",
        "--cfg=all",
        "--resolve",
        "--info=config",
        "--help",
        "--config-name=x",
        "--config-dir=x",
        "-x",
        "--cfg=x",
        "--shout",
    ]
)
command_lines = st.builds(
    lambda first, rest, flag: [*first, *rest, *flag],
    st.lists(st.sampled_from([*map(str, Task), "trian"]), max_size=1),
    st.lists(overrides, min_size=1, max_size=4),
    st.just([]) | st.just([]) | st.just(["-m"]) | st.lists(flags, max_size=2),
)
