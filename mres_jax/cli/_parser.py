"""Arguments of every command. Standard library only, so that `--help` is quick."""

import argparse
import functools
import re
from collections.abc import Sequence
from importlib import metadata
from typing import NoReturn

from mres_jax.config import did_you_mean
from mres_jax.errors import ConfigError

_PLANNED = (
    "native, budget:256, scale:0.5, fixed:336[,mode=squash|pad|crop|keep], fixed,tokens=182, "
    "tiles[:336,max=4], split[:1024] (where the model numbers its squares)"
)
_NAMED = "window:TOP.LEFT.BOTTOM.RIGHT, task,file=F, allocator,weights=DIR,retention=0.25"
POLICIES = f"{_PLANNED}, zoom[,window=0.25,source=gradient], {_NAMED}"
SERVED_POLICIES = f"{_PLANNED}, {_NAMED} (not with --upstream)"
MODEL_HELP = (
    "a directory (orbax or Hugging Face), a hub id org/name[@revision]; default: the shipped "
    "mres-tiny, which reads generated documents only"
)
WEIGHTS_HELP = "int8: kernels of linear layers in eight bits; default: as they are"
PROCESSOR_HELP = (
    "model behind the server that -m names, a directory, a hub id or mres-tiny, whose processor "
    "counts its tokens; its weights are not read; default: 28 px a side, as Qwen2-VL"
)
ADAPTER_HELP = "low-rank adapters in peft's format, a directory; put on the model"
TIMEOUT_HELP = "s that a server has for one answer; default 120"
SERVED_HELP = f"{MODEL_HELP}; or the address of a server, http://host:port/v1#name"
_WITH_RUN_FILE = ("train", "eval", "plan")  # commands whose fields can be overridden
_OVERRIDE = re.compile(r"(--)?[A-Za-z_][\w-]*(\.[^=\s]+)*=.*", re.DOTALL)


class _Parser(argparse.ArgumentParser):
    """Refuses in one line, with the nearest word."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{self.prog.removeprefix('mres ')}: {message}. See {self.prog} --help.")


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of `mres` with all its commands."""
    parser = _Parser(
        prog="mres",
        description="Vision-language models that decide how many pixels to look at.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    for name, (add, text) in _COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=f"{text}.", allow_abbrev=False)
        add(sub)
    return parser


def parse(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """Returns the arguments; overrides of a run file are collected in `overrides`.

    Raises:
      ConfigError: an unknown command or option (with the nearest one), or a missing argument.
    """
    words = [word for word in argv if not word.startswith("-")]
    if words and argv[0] == words[0] and words[0] not in _COMMANDS:
        raise ConfigError(
            f"no command {words[0]!r}.{did_you_mean(words[0], _COMMANDS)} "
            f"Commands: {', '.join(_COMMANDS)}."
        )
    args, extra = parser.parse_known_args(argv)
    if args.command is None:
        parser.print_help()
        raise SystemExit(2 if argv else 0)
    has_file = args.command in _WITH_RUN_FILE
    overrides = [word for word in extra if has_file and _OVERRIDE.fullmatch(word)]
    if args.command in ("ask", "allocate"):  # pictures after an option
        args.images += [word for word in extra if not word.startswith("-")]
        extra = [word for word in extra if word.startswith("-")]
    unknown = [word for word in extra if word not in overrides]
    if unknown:
        raise _unknown_option(args.command, unknown[0])
    args.overrides = overrides
    return args


def _unknown_option(command: str, word: str) -> ConfigError:
    options = _options(command)
    name = word.partition("=")[0]
    if command in _WITH_RUN_FILE and "." in name and "=" not in word:
        return ConfigError(f"{command}: {name} needs its value after an equals sign: {name}=VALUE.")
    return ConfigError(
        f"{command}: unknown argument {name!r}.{did_you_mean(name, options)} "
        f"See mres {command} --help."
    )


def _options(command: str) -> list[str]:
    sub = _Parser(allow_abbrev=False)
    _COMMANDS[command][0](sub)
    nested = [a.choices or {} for a in sub._actions if isinstance(a, argparse._SubParsersAction)]
    parsers = [sub, *(parser for choices in nested for parser in choices.values())]
    return [name for each in parsers for action in each._actions for name in action.option_strings]


def _version() -> str:
    try:
        return f"mres {metadata.version('mres-jax')}"
    except metadata.PackageNotFoundError:
        return "mres (not installed, run from its source)"


def _add_ask(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "images",
        nargs="*",
        metavar="IMAGE",
        help="pictures, videos and folders of frames, in the order of the prompt",
    )
    add("-q", "--question", required=True, metavar="TEXT", help="what to ask")
    add("-m", "--model", metavar="M", help=SERVED_HELP)
    add("--processor", metavar="M", help=PROCESSOR_HELP)
    add("--timeout", type=float, metavar="S", help=TIMEOUT_HELP)
    add(
        "-p",
        "--policy",
        action="append",
        metavar="P",
        help=f"how many pixels to look at; may be repeated, a row each: {POLICIES}",
    )
    add(
        "--dtype",
        choices=("float32", "bfloat16"),
        help="of weights and arithmetic; default: what suits the device",
    )
    add("--weights", choices=("int8",), help=WEIGHTS_HELP)
    add("--adapter", metavar="DIR", help=ADAPTER_HELP)
    add(
        "--fps",
        type=float,
        metavar="F",
        help="frames looked at per second of video; of a folder, those it was taken at; default: "
        "the model's, mostly 2",
    )
    add("--max-frames", type=int, metavar="N", help="of a clip; default: the model's, mostly 768")
    add("--save", metavar="DIR", help="write what the model saw, per policy, as PNG")
    add("--json", action="store_true", help="print one JSON object and nothing else")
    add("--stream", action="store_true", help="write the answer while it grows; one policy")
    add("--max-new-tokens", type=int, default=64, metavar="N", help="default 64")
    add(
        "--stop", action="append", default=[], metavar="TEXT", help="end before it; may be repeated"
    )
    add("--temperature", type=float, default=0.0, metavar="T", help="default 0: greedy")
    add("--top-p", type=float, default=1.0, metavar="P", help="with a temperature; default 1")
    add("--top-k", type=int, default=0, metavar="K", help="with a temperature; default 0: all")
    add("--seed", type=int, default=0, metavar="S", help="of sampling; default 0")


def _add_allocate(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("images", nargs="*", metavar="IMAGE", help="picture files, or the frames of a clip")
    add("-q", "--question", required=True, metavar="TEXT", help="what will be asked")
    add("-w", "--weights", required=True, metavar="DIR", help="a trained allocator")
    add("-m", "--model", metavar="M", help=MODEL_HELP + "; it sets what a visual token is")
    add("--retention", type=float, metavar="R", help="share of native visual tokens to be spent")
    add("--top", type=int, metavar="K", help="keep the K largest and leave the others out")
    add("--save", metavar="DIR", help="write a strip of the pictures at their sizes, as PNG")
    add("--json", action="store_true", help="print one JSON object and nothing else")


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.usage = (
        "mres train FILE [--a.b=c ...] [--print-config | --dry-run [--json]] [--smoke] "
        "[--multihost]"
    )
    add = parser.add_argument
    add("file", metavar="FILE", help="run file, for example configs/tiny/pages.py; it is executed")
    add("--print-config", action="store_true", help="print the resolved run as JSON and stop")
    add("--dry-run", action="store_true", help="say what it would take, train nothing, and stop")
    add("--json", action="store_true", help="of --dry-run: print one JSON object")
    add("--smoke", action="store_true", help="the run's own short form: minutes on a CPU")
    add(
        "--multihost",
        action="store_true",
        help="this is one of the run's processes, all started by the same command: of a TPU pod, "
        "SLURM, GKE or MPI, or JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID",
    )


def _add_eval(parser: argparse.ArgumentParser) -> None:
    parser.usage = "mres eval FILE [--a.b=c ...] [--smoke] | mres eval TASK -o DIR [-m M] [-p P]"
    add = parser.add_argument
    add(
        "file",
        metavar="FILE",
        help="run file, such as configs/tiny/evaluate.py (it is executed); or a task: questions as "
        "JSON lines, a folder with rows.jsonl or a set of mres rcbench, generated[:N], or "
        "a benchmark with :PATH of a copy, such as hrbench4k, screenspot_pro, chartqa, videomme",
    )
    add("--print-config", action="store_true", help="print the resolved run as JSON and stop")
    add("--smoke", action="store_true", help="a run file's own short form")
    add("-m", "--model", action="append", metavar="M", help=f"{SERVED_HELP}; may be repeated")
    add("--processor", metavar="M", help=PROCESSOR_HELP)
    add("--timeout", type=float, metavar="S", help=TIMEOUT_HELP)
    add(
        "-p",
        "--policy",
        action="append",
        metavar="P",
        help=f"may be repeated: {POLICIES}, 'no picture'; default: what the model was trained with",
    )
    add("--weights", choices=("int8",), help=WEIGHTS_HELP)
    add("--adapter", metavar="DIR", help=ADAPTER_HELP)
    add("-o", "--out", metavar="DIR", help="of the results; a stopped evaluation goes on there")
    add("--metric", metavar="NAME", help="of questions that name none")
    add("--images", metavar="DIR", help="picture folder; default: where the questions are")
    add("--limit", type=int, metavar="N", help="the first N questions only")
    add("--max-new-tokens", type=int, metavar="N", help="default 32")
    add("--seed", type=int, metavar="S", help="of generated questions and drawn tokens; default 0")


def _add_report(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN", help="directory of mres eval, or of one of its arms")
    add("-o", "--out", default="report", metavar="DIR", help="for index.html and CSV; report/")
    add("--against", metavar="ARM", help="[MODEL/]POLICY that all are compared with; the first")
    add("--flips", type=int, default=8, metavar="N", help="shown of each comparison; default 8")


def _add_plan(parser: argparse.ArgumentParser) -> None:
    parser.usage = (
        "mres plan FILE --topology NAME [--phase P]... [--policy P]... [--frame WxH] [--scale S] "
        "[--a.b=c ...] [--json]"
    )
    add = parser.add_argument
    add("file", metavar="FILE", help="run file; it is executed")
    add(
        "--topology",
        required=True,
        metavar="NAME",
        help="slice or machine: v5e:4x4, v5litepod-16, v5p:4x4x4, tpu7x:2x2x1, gpu:h200x8",
    )
    add(
        "--phase",
        action="append",
        choices=("train", "prefill", "decode"),
        help="compile this one alone, or these; all three without it",
    )
    add(
        "-p",
        "--policy",
        action="append",
        default=[],
        metavar="P",
        help="packs, steps and hours of an epoch of the run's data under it; may be repeated",
    )
    add(
        "--frame",
        metavar="WxH",
        help="training by rewards: px of a frame of its clips; default 1280x720",
    )
    add(
        "--scale",
        type=float,
        metavar="S",
        help="likewise: that all are seen at; default: that of a fresh allocator",
    )
    add("--json", action="store_true", help="print one JSON object")


def _add_convert(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SRC", help="Hugging Face or orbax directory, or hub id")
    parser.add_argument("target", metavar="DST", help="new directory; SRC tells the direction")
    parser.add_argument(
        "--adapter", action="store_true", help="of a run: only what it trained, in peft's format"
    )


def _add_doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-m", "--model", metavar="M", help="also load this model and check it")
    parser.add_argument("--json", action="store_true", help="print the report as one JSON object")


def _add_data(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    add = functools.partial(actions.add_parser, allow_abbrev=False)
    _add_reading(add("check", help="what is wrong with it"))
    prepare = add("prepare", help="what it costs; with DST, also shards that hold their pictures")
    _add_reading(prepare)
    prepare.add_argument(
        "target", nargs="?", metavar="DST", help="new directory of the shards, or address"
    )
    prepare.add_argument("--shard-mb", type=int, default=256, metavar="N", help="default 256")
    prepare.add_argument(
        "--on-bad", choices=("skip", "raise"), default="skip", help="rows; default: skip and count"
    )
    convert = add("convert", help="annotations of a published data set to rows of questions")
    convert.add_argument("source", metavar="SRC", help="its file of annotations")
    convert.add_argument("target", metavar="DST", help="new .jsonl file")
    convert.add_argument(
        "--format", required=True, metavar="NAME", help="video-r1, nextgqa or charades-sta"
    )
    convert.add_argument("--spans", metavar="FILE", help="of nextgqa: gsub_val.json, ...")
    convert.add_argument("--videos", metavar="FILE", help="of nextgqa: map_vid_vidorID.json")
    convert.add_argument("--suffix", default=".mp4", metavar="S", help="of videos; default .mp4")
    convert.add_argument("--images", metavar="DIR", help="of the files; leave out what is missing")
    convert.add_argument("--on-bad", choices=("skip", "raise"), default="skip", help="rows")
    convert.add_argument("--json", action="store_true", help="print one JSON object")


def _add_reading(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "source",
        metavar="SRC",
        help="rows: JSON, a directory of mres data prepare, parquet or tar files, tfds:NAME@DIR",
    )
    add("--images", metavar="DIR", help="folder of pictures and clips; default: where SRC is")
    add("-m", "--model", metavar="M", help="for whose template and tokenizer; default: mres-tiny")
    add("-p", "--policy", action="append", metavar="P", help="may be repeated")
    add("--template", choices=("chat", "plain"), default="chat", help="plain: captions alone")
    add("--fps", type=float, metavar="X", help="frames per second looked at of a video file")
    add("--max-frames", type=int, metavar="N", help="of a clip; default: as the model takes them")
    add("--follow-links", action="store_true", help="links may lead out of the picture folder")
    add(
        "--field",
        action="append",
        default=[],
        metavar="OURS=THEIRS",
        help="name of a field in parquet, tar or TFDS; may be repeated",
    )
    add("--json", action="store_true", help="print one JSON object and nothing else")


def _add_serve(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-m", "--model", metavar="M", help=MODEL_HELP)
    add(
        "-p",
        "--policy",
        metavar="P",
        help=f"for every picture: {SERVED_POLICIES}; default: the model's",
    )
    add("--host", default="127.0.0.1", metavar="H", help="address to listen at; default 127.0.0.1")
    add("--port", type=int, default=8000, metavar="N", help="default 8000; 0: any that is free")
    add("--upstream", metavar="URL", help="pass on to this server; --model gives its processor")
    add("--allow-policy", action="store_true", help="requests may name a policy of their own")
    add(
        "--allow-host",
        action="append",
        default=[],
        metavar="HOST",
        help="pictures may be fetched from HOST[:PORT]; may be repeated; default: from nowhere",
    )
    add("--dtype", choices=("float32", "bfloat16"), help="default: what suits the device")
    add("--weights", choices=("int8",), help=WEIGHTS_HELP)
    add("--adapter", metavar="DIR", help=ADAPTER_HELP)
    add("--max-new-tokens", type=int, default=512, metavar="N", help="of requests that do not say")
    add("--max-waiting", type=int, default=64, metavar="N", help="requests; default 64")
    add("--max-body-mb", type=int, default=32, metavar="N", help="MiB of a request; default 32")
    add("--max-pixels", type=int, default=64_000_000, metavar="N", help="of a request's pictures")
    add("--timeout", type=float, default=600.0, metavar="S", help="of --upstream, seconds")
    add("--grace", type=float, default=30.0, metavar="S", help="to finish in after SIGTERM")
    add("--quiet", action="store_true", help="no line per request on stderr")


def _add_rcbench(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    add = functools.partial(actions.add_parser, allow_abbrev=False)
    make = add("make", help="a set, from your pictures or generated").add_argument
    make("source", nargs="?", metavar="SRC", help="questions: JSON list, JSON lines or parquet")
    make("-o", "--out", required=True, metavar="DIR", help="new folder of the set")
    make("--images", metavar="DIR", help="picture folder; default: where SRC is")
    make("--generate", action="store_true", help="of generated documents, instead of SRC")
    make("--type", choices=("rc", "sc"), default="rc", help="of generated questions; default: rc")
    make("--per-cell", type=int, metavar="N", help="questions a cell; default 50")
    make("--all", action="store_true", help="all rows as they are, for example the official data")
    make("--seed", type=int, default=0, metavar="S", help="of the choice; default 0")
    make("--unit", type=float, metavar="PX", help="side that area cuts follow from; default 384")
    make("--area-cuts", metavar="A,...", help="six areas instead, px")
    make("--ratio-cuts", metavar="R,...", help="four ratios, width / height; default 1/4,1/2,2,4")
    make("--scales", metavar="S,S", help="least and most resizing per side; default 0.5,2")
    make("--metric", choices=("exact", "unit", "anls"), help="of rows that name none")
    make("--tfds", metavar="DIR", help="also write it there as a data set of TensorFlow Datasets")
    make("--skip-bad", action="store_true", help="leave out bad rows, counted on the card")
    score = add("score", help="what predictions are worth").add_argument
    score("set", metavar="SET", help="folder of a set")
    score("predictions", metavar="FILE", help="JSON lines of {id, prediction}")
    score("-o", "--out", metavar="DIR", help="write scores.jsonl and summary.json there")
    score("--anls-threshold", type=float, default=0.5, metavar="T", help="default 0.5")
    score("--samples", type=int, default=2000, metavar="N", help="of the bootstrap; default 2000")
    score("--seed", type=int, default=0, metavar="S", help="of the bootstrap; default 0")
    score("--json", action="store_true", help="print the summary as one JSON object")
    plot = add("plot", help="the map of one result, or two and their difference")
    plot.add_argument("results", nargs="+", metavar="RESULT", help="one or two folders of score")
    plot.add_argument("-o", "--out", required=True, metavar="DIR", help="for PNG and CSV")


def _add_demo(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--seed", type=int, default=0, metavar="N", help="of all pictures and questions; default 0")
    add(
        "--questions",
        type=int,
        metavar="N",
        help="of the table; default 140, or 70 on a slow machine",
    )
    add("--text", metavar="TEXT", help="ask about a page that says this instead")
    add("--height", type=int, metavar="PX", help="of the capitals of --text, 4 to 48; default 11")
    add("--out", default="demo", metavar="DIR", help="default demo/")
    add("-m", "--model", metavar="M", help=MODEL_HELP)


def _add_resolution(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--task", required=True, metavar="DIR", help="folder with rows.jsonl and its pictures")
    add("-m", "--model", metavar="M", help=SERVED_HELP)
    add("--processor", metavar="M", help=PROCESSOR_HELP)
    add("--adapter", metavar="DIR", help=ADAPTER_HELP)
    add("--timeout", type=float, metavar="S", help=TIMEOUT_HELP)
    add(
        "-p",
        "--candidate",
        action="append",
        metavar="P",
        help="budget:N, fixed:S or fixed,tokens=N; at least three; default: budget:16, 32, 64, ...",
    )
    add(
        "--reference",
        action="append",
        metavar="DIR",
        help="task with answers that the formula is fitted to; repeat it; default: a plain sweep",
    )
    add("--calibration", metavar="FILE", help="written before with --reference")
    add(
        "--combine",
        choices=("product", "sum", "loglinear"),
        help="form of the formula; default product",
    )
    add(
        "--complexity",
        metavar="NAME",
        help="mdl, gradient, entropy, compressed; default that of --calibration, else mdl",
    )
    add(
        "--perturbations",
        type=int,
        metavar="N",
        help="of each picture; default that of --calibration, else 3",
    )
    add("--mean-tokens", type=float, metavar="N", help="also one resolution per picture under this")
    add("--max-new-tokens", type=int, default=16, metavar="N", help="default 16")
    add("--seed", type=int, default=0, metavar="S", help="of perturbations and resamplings")
    add("--out", default="resolution", metavar="DIR", help="for TASK.json and TASK.png")
    add("--json", action="store_true", help="print one JSON object and nothing else")


_COMMANDS = {
    "ask": (
        _add_ask,
        "Ask a question about pictures and videos; an answer with its cost per policy",
    ),
    "allocate": (_add_allocate, "Say how large each picture would be looked at for a question"),
    "train": (_add_train, "Train what a run file describes; resumes by itself"),
    "eval": (_add_eval, "Evaluate models under policies, a line per answer; resumes by itself"),
    "report": (_add_report, "Compare evaluations: one page with figures, tables and flipped items"),
    "plan": (
        _add_plan,
        "Say what a run takes of a slice that is not here: memory, time, exchanges",
    ),
    "convert": (_add_convert, "Convert a Hugging Face directory to an orbax checkpoint, or back"),
    "data": (
        _add_data,
        "Check a data set of rows, see what it costs, write its shards, convert it",
    ),
    "resolution": (_add_resolution, "Choose the one resolution that suits a task"),
    "rcbench": (_add_rcbench, "Make an RC-Bench style set, score predictions, draw their map"),
    "doctor": (_add_doctor, "Report what is installed, and whether a model loads and answers"),
    "serve": (_add_serve, "Serve a model to OpenAI clients, or stand before another server"),
    "demo": (
        _add_demo,
        "Ask fresh questions under several policies: table, documents, pictures, a page to explore",
    ),
}
