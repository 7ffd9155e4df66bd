"""From a stage's options record to the flags of a command.

A command is a function of a `Session`, of options records and of files. `command` makes its flags
of that signature: each record turns into one flag for each of its options, with the default,
range, choices and help text that the record has, and ``--json``, ``--quiet`` and ``--debug``
come by themselves.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import is_dataclass
from enum import Enum, StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from xaikit.artifacts.option_values import item_type, plain_type
from xaikit.artifacts.options import Flag, applied, flags, value_of
from xaikit.cli.console import Session
from xaikit.errors import OptionError
from xaikit.text import shell_line

OUTPUT = "Output"

TraceFile = Annotated[Path, typer.Option("--trace", help="Of `xaikit trace`.")]
FeaturesFile = Annotated[Path, typer.Option("--features", help="Of `xaikit cluster`.")]
FitFile = Annotated[Path, typer.Option("--fit", help="Of `xaikit fit`.")]
CircuitFile = Annotated[Path, typer.Option("--circuit", help="Of `xaikit circuit`.")]
LiveTrace = Annotated[
    Path | None,
    typer.Option("--trace", help="For the ids of the images; default: the features' own."),
]
LiveFeatures = Annotated[
    Path | None, typer.Option("--features", help="Of `xaikit cluster`; default: the fit's.")
]
TraceOrModel = Annotated[
    Path | None,
    typer.Option("--trace", help="A trace to read; by default the model is traced in memory."),
]
Labels = Annotated[
    Path | None,
    typer.Option(
        "--labels",
        help="Prompts, one a line, or a JSON object of folder to prompt; a model with a "
        "classifier head uses the head.",
    ),
]
Out = Annotated[Path, typer.Option("--out", help="File to write.")]
OptionalOut = Annotated[Path | None, typer.Option("--out", help="JSON file to write.")]
Markdown = Annotated[
    bool, typer.Option("--markdown", help="Print Markdown tables.", rich_help_panel=OUTPUT)
]
Force = Annotated[bool, typer.Option("--force", help="Run stages again that are already there.")]
_Json = Annotated[
    bool,
    typer.Option("--json", help="Print the result as one JSON object.", rich_help_panel=OUTPUT),
]
_Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress and no notes.", rich_help_panel=OUTPUT)
]
_Debug = Annotated[
    bool, typer.Option("--debug", help="Show where an error comes from.", rich_help_panel=OUTPUT)
]
_ALWAYS = {"json": _Json, "quiet": _Quiet, "debug": _Debug}


class Control(StrEnum):
    """Controls that cost a trace of their own."""

    none = "none"
    random_weights = "random-weights"


ControlOption = Annotated[
    Control,
    typer.Option(
        "--control",
        help="`random-weights` traces the same images with an untrained model as well.",
        rich_help_panel="Statistics",
    ),
]


class Given(dict[str, Any]):
    """The options that were given by hand, by their Python names; a command may ask for them."""


class Typed(dict[str, list[str]]):
    """What was given by hand, as words that give it again; a command may ask for them."""

    @classmethod
    def of(cls, context: typer.Context) -> Typed:
        """The words of each parameter that decides a result, by its name; arguments come last."""
        known = [each for each in context.command.params if each.name not in _ALWAYS]
        known.sort(key=lambda each: each.param_type_name == "argument")
        values = {str(each.name): each for each in known if _by_hand(context, str(each.name))}
        return cls({name: _words(each, context.params[name]) for name, each in values.items()})

    def line(self, command: str, *without: str) -> str:
        """The command as a shell takes it, without some of its parameters."""
        kept = [word for name, words in self.items() if name not in without for word in words]
        return shell_line(["xaikit", command, *kept])


def _words(parameter: Any, value: Any) -> list[str]:
    if parameter.param_type_name == "argument":
        return ["--", str(value)] if str(value).startswith("-") else [str(value)]
    if isinstance(value, bool):
        return [parameter.opts[0] if value else parameter.secondary_opts[0]]
    return [parameter.opts[0], str(value)]


def command(
    name: str, *, examples: Sequence[str] = (), panel: str | None = None
) -> Callable[[Callable[..., None]], Any]:
    """Make a command of a function; its docstring is the help."""

    def made(body: Callable[..., None]) -> Any:
        app = typer.Typer(
            add_completion=False,
            rich_markup_mode="markdown",
            pretty_exceptions_enable=False,
            context_settings={"help_option_names": ["-h", "--help"]},
        )
        title = "Example" if len(examples) == 1 else "Examples"
        epilog = "\n\n".join([title, *(f"`{each}`" for each in examples)]) if examples else None
        app.command(name=name, epilog=epilog, rich_help_panel=panel)(_with_flags(body))
        return typer.main.get_command(app)

    return made


def _with_flags(body: Callable[..., None]) -> Callable[..., None]:
    """A function of flags alone, with the signature that typer reads."""
    wanted = inspect.signature(body, eval_str=True).parameters
    kinds: dict[str, Any] = {
        name: each.annotation for name, each in wanted.items() if is_dataclass(each.annotation)
    }
    records = {
        name: kind() if wanted[name].default is inspect.Parameter.empty else wanted[name].default
        for name, kind in kinds.items()
    }
    own = [
        each.replace(kind=each.KEYWORD_ONLY)
        for each in wanted.values()
        if each.name not in records and each.annotation not in (Session, Given, Typed)
    ]
    known: dict[str, tuple[Flag, Any]] = {}
    for record in records.values():
        for flag in flags(type(record)):
            known.setdefault(flag.name, (flag, value_of(record, flag)))
    taken = {each.name for each in own}
    made = [_parameter(flag, value) for flag, value in known.values() if flag.name not in taken]
    always = [_keyword(name, hint, False) for name, hint in _ALWAYS.items()]
    parameters = [_keyword("context", typer.Context), *own, *made, *always]

    def run(context: typer.Context, **values: Any) -> None:
        found = {name: _read(flag, values[name]) for name, (flag, _) in known.items()}
        arguments: dict[str, Any] = {}
        for name, each in wanted.items():
            if name in records:
                arguments[name] = applied(records[name], found)
            elif each.annotation is Session:
                arguments[name] = Session(json=values["json"], quiet=values["quiet"])
            elif each.annotation is Given:
                by_hand = {k: v for k, v in found.items() if _by_hand(context, k)}
                arguments[name] = Given(by_hand)
            elif each.annotation is Typed:
                arguments[name] = Typed.of(context)
            else:
                arguments[name] = values[name]
        body(**arguments)

    run.__doc__ = body.__doc__
    run.__name__ = body.__name__
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


def _by_hand(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def _keyword(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> Any:
    keyword = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, keyword, default=default, annotation=annotation)


def _parameter(flag: Flag, default: Any) -> inspect.Parameter:
    """A flag as typer takes it."""
    known = flag.option
    kind: Any = plain_type(flag.hint)[0]
    typed = flag.typed
    metavar = known.metavar
    if kind is bool and default is not False:
        typed = f"{typed}/--no-{typed.removeprefix('--')}"
    elif known.parse is not None or item_type(flag.hint) is not None:
        kind, default = str, _text(default)
    elif known.choices:
        kind = _choice(known.choices)
        default = None if default is None else kind(default)
    hint = kind if default is not None else kind | None
    details = typer.Option(typed, help=known.help, rich_help_panel=known.panel, metavar=metavar)
    made: inspect.Parameter = _keyword(flag.name, Annotated[hint, details], default)
    return made


def _choice(values: Sequence[str]) -> Any:
    """An enumeration, which is what typer makes choices of."""
    members: Any = {each: each for each in values}
    return StrEnum("Choice", members)


def _text(value: Any) -> str | None:
    """A default as it would be typed."""
    if value is None:
        return None
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _read(flag: Flag, value: Any) -> Any:
    """What was typed, as the record wants it."""
    if isinstance(value, Enum):
        return value.value
    if not isinstance(value, str):
        return value
    item = item_type(flag.hint)
    if flag.option.parse is None and item is None:
        return value
    try:
        if flag.option.parse is not None:
            return flag.option.parse(value)
        # A list of none is typed as nothing.
        return tuple(item(part) for part in value.split(",")) if value else ()
    except ValueError as error:
        expected = str(error)
        if flag.option.parse is None:
            example = {int: "8,16,32", float: "0.001,0.01,0.1"}.get(item, "a,b")
            expected = f"numbers such as {example}"
        raise OptionError(flag.name, value, expected, flag=flag.option.flag) from None
