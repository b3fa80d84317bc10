"""The data in a pickle, read without unpickling: no class is looked up, no function is called, nothing is imported.

Python's pickletools splits the file into instructions. Here they build dicts, lists and tuples; an object of any class
becomes a Made, which has the name of the class as text. Enough for whatever `torch.save` writes (protocols 2 to 5).
Time and memory grow with the length of the file: no instruction copies what an earlier one built.
"""

import pickletools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

MAX_INSTRUCTIONS = 1_000_000
"""A pickled DenseNet-121 has about 100,000. A million take seconds and some 100 MB."""
MAX_NAME = 300
"""Characters of a class's name."""
_RUNS = re.compile(
    r"(os|posix|nt|subprocess|commands|sys|runpy|pty|shutil|socket|importlib|ctypes)\.[\w.]{1,60}"
    r"|(builtins|__builtin__|io|_io)\.(eval|exec|execfile|compile|open|__import__)"
)
"""Names that only a hostile pickle has. There are others: what keeps us safe is that no name is looked up."""


class RunsCode(Exception):
    """Unpickling would run code; the message is the name of what it would call."""


@dataclass(frozen=True)
class Named:
    """The name of a class or function: its module, a dot, its own name."""

    name: str


@dataclass(eq=False)
class Made:
    """An object that unpickling would make, by calling `maker` with `args`; then it would set what `parts` hold."""

    maker: Any
    args: Any
    parts: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Reference:
    """An object that is stored outside of the pickle, and what the pickle says of it."""

    says: Any


def read_pickle(file: BinaryIO) -> tuple[Any, list[Reference]]:
    """What the pickle at the position of `file` describes, and all references in it; `file` is left behind the pickle.

    Dicts keep the entries whose keys are text, and sets become lists. Raises ValueError if it is no pickle, damaged,
    longer than MAX_INSTRUCTIONS, or has instructions that PyTorch's files have not; RunsCode if it is clearly hostile.
    """
    machine = _Machine()
    try:
        for count, (code, value, _) in enumerate(pickletools.genops(file)):
            if count >= MAX_INSTRUCTIONS:
                raise ValueError
            if code.name in _VALUES:
                machine.push(_CONSTANTS.get(code.name, value))
            elif code.name in _STEPS:
                _STEPS[code.name](machine, value)
            elif code.name not in {"PROTO", "FRAME", "STOP"}:
                raise ValueError
        (found,) = machine.stack
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError("expected a sound pickle such as PyTorch writes, of at most a million instructions") from error
    return found, machine.references


class _Machine:
    """The stack of a pickle, the stacks below each mark, and what it memorised."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.references: list[Reference] = []

    def push(self, item: Any) -> None:
        self.stack.append(item)

    def take(self, count: int) -> list[Any]:
        """The last `count` objects, taken away, the oldest first."""
        return [self.stack.pop() for _ in range(count)][::-1]

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def marked(self) -> list[Any]:
        """All that was put on the stack since the last mark, taken away."""
        items, self.stack = self.stack, self.below.pop()
        return items

    def extend(self, items: Sequence[Any]) -> None:
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)

    def update(self, items: Sequence[Any]) -> None:
        """Set keys and values, which take turns in `items`."""
        pairs = zip(items[::2], items[1::2], strict=True)
        entries = {key: value for key, value in pairs if isinstance(key, str)}
        into = self.stack[-1]
        into.parts.append(entries) if isinstance(into, Made) else into.update(entries)

    def build(self, state: Any) -> None:
        """Set attributes; the state of an object with slots is a pair of dicts."""
        if isinstance(self.stack[-1], Made):
            parts = state if isinstance(state, tuple) and len(state) == 2 else (state,)
            self.stack[-1].parts += [part for part in parts if isinstance(part, dict)]

    def name(self, *words: str) -> None:
        if sum(map(len, words)) > MAX_NAME:
            raise ValueError
        self.push(Named(".".join(words)))
        if _RUNS.fullmatch(self.stack[-1].name):
            raise RunsCode(self.stack[-1].name)

    def refer(self, says: Any) -> None:
        self.references.append(Reference(says))
        self.push(self.references[-1])

    def keep(self, place: int) -> None:
        self.memo[place] = self.stack[-1]


_CONSTANTS = {"NEWTRUE": True, "NEWFALSE": False}
_VALUES = {
    *("NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
    *("BINSTRING", "SHORT_BINSTRING", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": lambda machine, _: machine.mark(),
    "POP": lambda machine, _: machine.take(1).clear(),
    "POP_MARK": lambda machine, _: machine.marked().clear(),
    "DUP": lambda machine, _: machine.push(machine.stack[-1]),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_SET": lambda machine, _: machine.push([]),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.marked())),
    "TUPLE1": lambda machine, _: machine.push(tuple(machine.take(1))),
    "TUPLE2": lambda machine, _: machine.push(tuple(machine.take(2))),
    "TUPLE3": lambda machine, _: machine.push(tuple(machine.take(3))),
    "FROZENSET": lambda machine, _: machine.push(machine.marked()),
    "APPEND": lambda machine, _: machine.extend(machine.take(1)),
    "APPENDS": lambda machine, _: machine.extend(machine.marked()),
    "ADDITEMS": lambda machine, _: machine.extend(machine.marked()),
    "SETITEM": lambda machine, _: machine.update(machine.take(2)),
    "SETITEMS": lambda machine, _: machine.update(machine.marked()),
    "GLOBAL": lambda machine, words: machine.name(*words.split(" ")),
    "STACK_GLOBAL": lambda machine, _: machine.name(*machine.take(2)),
    "REDUCE": lambda machine, _: machine.push(Made(*machine.take(2))),
    "NEWOBJ": lambda machine, _: machine.push(Made(*machine.take(2))),
    "NEWOBJ_EX": lambda machine, _: machine.push(Made(*machine.take(3)[:2])),
    "BUILD": lambda machine, _: machine.build(*machine.take(1)),
    "BINPERSID": lambda machine, _: machine.refer(*machine.take(1)),
    "BINPUT": lambda machine, place: machine.keep(place),
    "LONG_BINPUT": lambda machine, place: machine.keep(place),
    "MEMOIZE": lambda machine, _: machine.keep(len(machine.memo)),
    "BINGET": lambda machine, place: machine.push(machine.memo[place]),
    "LONG_BINGET": lambda machine, place: machine.push(machine.memo[place]),
}
