"""What a value is after it was stored, and what is refused before it is."""

from __future__ import annotations

import enum
import subprocess
import sys
import uuid
from collections import OrderedDict, namedtuple
from datetime import UTC, date, datetime
from datetime import time as clock_time
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kombu.utils import json as kombu_json

from axme_celery import codec
from axme_celery.codec import DEEPEST, MOST_DIGITS, canonical_hash, decode, encode
from axme_celery.errors import NotJson, TooLarge

# How long an example takes depends on who else uses the machine, and says nothing here.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def keep(value, limit_bytes=1048576):
    return encode(value, what="result of step 'fetch'", limit_bytes=limit_bytes, setting="axme_result_bytes")


def refusal(value) -> str:
    with pytest.raises(NotJson) as refused:
        keep(value)
    with pytest.raises(NotJson):
        canonical_hash(value)
    text = str(refused.value)
    assert text.startswith("result of step 'fetch': $") and len(text) < 400
    return text.removeprefix("result of step 'fetch': ")


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
    | st.datetimes(timezones=st.just(UTC)).map(lambda at: at.replace(fold=0))
    | st.datetimes().map(lambda at: at.replace(fold=0))  # fold says nothing of a time without a zone
    | st.dates()
    | st.times().map(lambda at: at.replace(fold=0))
    | st.uuids()
    | st.decimals(allow_nan=False, allow_infinity=False)
    | st.binary()
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=20
).filter(lambda value: "__type__" not in repr(value))


@settings(UNHURRIED)
@given(values)
def test_whatever_is_accepted_comes_back_equal_and_of_the_same_types(value):
    """Also through another encoding of the same text."""
    text = keep(value)

    again = decode(text)
    assert again == value
    assert repr(again) == repr(value)
    # An escaped backslash followed by "u0000" is text, not a NUL.
    assert "\0" not in text and "\\u0000" not in text.replace("\\\\", "")
    assert text.encode().decode() == text


# Lone surrogates, NULs, NaN, huge and odd things: most of these are refused.
wild = st.recursive(
    scalars | st.floats() | st.text(st.characters()) | st.sampled_from([{1}, object(), "\0", "\ud800", ...]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(st.characters()) | st.integers() | st.just("__type__"), inner, max_size=3)
    ),
    max_leaves=10,
)


@settings(UNHURRIED, max_examples=300)
@given(wild)
def test_a_value_is_either_refused_or_reads_back_and_never_breaks_a_reader(value):
    """Nothing else can happen: no other error, no text that cannot be decoded or stored as UTF-8."""
    try:
        text = keep(value)
    except NotJson:
        return
    decode(text)
    assert "\\u0000" not in text.replace("\\\\", "")
    text.encode()
    assert canonical_hash(value) == canonical_hash(decode(text))


def test_the_text_is_compact_and_keeps_characters_as_they_are():
    """Three bytes for a Chinese character, not six."""
    assert keep({"a": [1, 2.5, None, True], "城": "é"}) == '{"a":[1,2.5,null,true],"城":"é"}'


def test_a_tuple_comes_back_as_a_list_and_a_subclass_as_its_plain_form():
    """As the module says. JSON has one kind of list and one kind of object."""

    class Colour(enum.StrEnum):
        RED = "red"

    class Level(enum.IntEnum):
        HIGH = 3

    point = namedtuple("Point", "x y")(1, 2)
    assert decode(keep((1, (2, 3)))) == [1, [2, 3]]
    assert decode(keep(point)) == [1, 2]
    again = decode(keep(OrderedDict(a=Colour.RED, b=Level.HIGH)))
    assert again == {"a": "red", "b": 3}
    assert [type(each) for each in (again, *again.values())] == [dict, str, int]


def test_bytes_of_every_kind_survive():
    """Text-like, binary, and those with a NUL, which a database would refuse as text."""
    for value in (b"", b"abc", "é".encode(), b"\xff\xfe", b"\0", b"a\0b", bytes(range(256))):
        text = keep({"data": value})
        assert decode(text) == {"data": value}
        assert "\\u0000" not in text


def test_a_type_registered_with_kombu_survives():
    """The same way a user teaches it to Celery's messages."""

    class Money:
        def __init__(self, cents):
            self.cents = cents

    kombu_json.register_type(Money, "money-of-a-test", lambda money: money.cents, Money)
    try:
        again = decode(keep([Money(5)]))
        assert again[0].cents == 5
        kombu_json._decoders.pop("money-of-a-test")
        with pytest.raises(NotJson, match=r"register it with kombu.utils.json.register_type in this process too"):
            decode('[{"__type__":"money-of-a-test","__value__":5}]')
    finally:
        kombu_json._encoders.pop(Money)


class Cursor:
    pass


class Keyed:
    def __json__(self):
        return {"deep": [{1: 2}]}


class Endless:
    def __json__(self):
        return [Endless()]


class Broken:
    def __json__(self):
        raise RuntimeError("no connection")


class Unshowable:
    def __repr__(self):
        raise RuntimeError("no")

    def __hash__(self):
        return 1


def nested(levels: int, inner=1):
    for _ in range(levels):
        inner = [inner]
    return inner


looped: list = []
looped.append({"again": looped})


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"rows": [1, 2, 3, {"cursor": {1}}]}, "$.rows[3].cursor is a set, which JSON cannot carry"),
        (Cursor(), "$ is a Cursor, which JSON cannot carry"),
        ({"a b": [object()]}, '$["a b"][0] is an object, which JSON cannot carry'),
        (float("nan"), "$ is nan, which JSON cannot carry; use None"),
        ({"x": (1.0, float("-inf"))}, "$.x[1] is -inf, which JSON cannot carry"),
        ({"x": {1: "a"}}, "$.x has the key 1 of type int; keys in JSON are text"),
        ({None: 1}, "$ has the key None of type NoneType"),
        ([[{True: 1}]], "$[0][0] has the key True of type bool"),
        ({(1, 2): 1}, "$ has the key (1, 2) of type tuple"),
        ({Unshowable(): 1}, "$ has the key <Unshowable> of type Unshowable"),
        (OrderedDict({1: 1}), "$ has the key 1 of type int"),
        (["a\0b"], "$[0] has a NUL character"),
        ({"a\0b": 1}, "$ has a key with a NUL character"),
        ({"x": "\ud800"}, "$.x has half a character"),
        ({"\udfff": 1}, "$ has a key with half a character"),
        (nested(DEEPEST + 1), "is more than 64 levels deep"),
        (nested(100_000), "is more than 64 levels deep"),
        (looped, "is more than 64 levels deep, or contains itself"),
        ({"n": 10**MOST_DIGITS}, "$.n is a whole number of more than 4300 digits"),
        ({"n": -(10**MOST_DIGITS)}, "$.n is a whole number of more than 4300 digits"),
        ({"n": 10**30000}, "$.n is a whole number of more than 4300 digits"),
        ({"x": {"__type__": "money", "__value__": 1}}, "$.x has just the keys __type__ and __value__"),
        ({"x": {"__type__": "datetime", "__value__": "now"}}, "$.x has just the keys __type__ and __value__"),
        ({"x": Broken()}, "$.x is a Broken that failed to turn itself into JSON (RuntimeError('no connection'))"),
        ({"x": Endless()}, "$.x[0][0][0]"),
        ({"x": [Keyed()]}, "$.x[0].deep[0] has the key 1 of type int"),
        ({"x" * 500: {1}}, "is a set, which JSON cannot carry"),
        (Exception("boom"), "$ is an Exception"),
        (lambda: 1, "$ is a function"),
    ],
)
def test_what_cannot_be_kept_is_refused_with_its_place_within_the_value(value, words):
    """The author sees which field of which row it is."""
    assert words in refusal(value)


def test_what_only_looks_like_trouble_is_kept():
    """Text about escapes, brackets and digits is text."""
    for value in (
        "\\u0000",
        ["[" * 5000, "{" * 5000],
        "9" * 10_000,
        {"__type__": "a field of mine"},
        {"__type__": 1, "__value__": 2, "more": 3},
        '"__type__"',
        nested(DEEPEST),
        [nested(DEEPEST - 1)] * 3,
        int("9" * MOST_DIGITS),
        -int("9" * MOST_DIGITS),
        [[]] * 500,
        "\ufffe\U0010ffff",
    ):
        assert decode(keep(value)) == value


def test_a_number_python_was_told_to_write_out_is_still_refused():
    """Another process, without that switch, could not read it."""
    code = (
        "import sys; sys.set_int_max_str_digits(0)\n"
        "from axme_celery.codec import encode\n"
        "encode([10**4300], what='payload', limit_bytes=10**6, setting='axme_payload_bytes')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "NotJson: payload: $[0] is a whole number of more than 4300 digits" in done.stderr


def test_a_value_over_the_limit_is_refused_with_its_size_in_bytes():
    """Bytes of UTF-8, not characters, since that is what a database stores."""
    assert keep("é" * 10, limit_bytes=22)
    with pytest.raises(TooLarge) as refused:
        keep("é" * 10, limit_bytes=21)

    assert refused.value.size_bytes == 22 and refused.value.limit_bytes == 21
    words = "result of step 'fetch' is 22 bytes, over the limit of 21; raise axme_result_bytes"
    assert str(refused.value).startswith(words)


def test_text_that_is_not_json_is_refused():
    """A damaged row is told as such."""
    for text in ("", "{", "nul", '{"__type__":"uuid","__value__":{"hex":"x"}}', "[" * 100_000):
        with pytest.raises(NotJson, match="a stored value cannot be read"):
            decode(text)


@settings(UNHURRIED)
@given(st.dictionaries(texts, values))
def test_a_hash_does_not_depend_on_the_order_of_keys(value):
    """Two processes that built the same payload in another order mean the same."""
    shuffled = dict(reversed(value.items()))
    assert canonical_hash(value) == canonical_hash(shuffled)
    assert len(canonical_hash(value)) == 64


def test_a_hash_is_the_same_for_ever_and_differs_for_other_values():
    """It is stored, and compared by later versions: this value may never change."""
    value = {"b": [1, 2.5, "é"], "a": {"when": datetime(2026, 1, 2, tzinfo=UTC), "id": uuid.UUID(int=7)}}
    assert canonical_hash(value) == "c99952116623ead0fdc7160f1537604e31922af526b39643fff644d5d36205e7"
    assert canonical_hash((1, 2)) == canonical_hash([1, 2])
    different = [1, "1", 1.0, True, None, [], {}, "", [1], {"a": 1}, {"a": "1"}, Decimal(1), date(2026, 1, 1), b"1"]
    assert len({canonical_hash(each) for each in different}) == len(different)


def test_times_and_dates_keep_their_kind():
    """A date does not become a datetime."""
    value = [datetime(2026, 1, 2, 3, tzinfo=UTC), date(2026, 1, 2), clock_time(3, 4, 5)]
    assert decode(keep(value)) == value
    assert [type(each) for each in decode(keep(value))] == [datetime, date, clock_time]


def test_ordinary_values_never_take_the_slow_way(monkeypatch):
    """The search for a fault, which walks everything in Python, is only for values that may have one."""
    monkeypatch.setattr(codec, "_fault", lambda value: pytest.fail("walked"))
    when = datetime(2026, 1, 2, tzinfo=UTC)
    row = {"id": "0192f0c1", "page": 47, "rows": [1, 2, 3], "done": True, "ratio": 0.5, "next": None, "at": when}

    for value in (row, {"x": [1, [2, ("é", b"\0")]]}, 5, "text", None, nested(DEEPEST), [row] * 1000, Decimal(1)):
        assert keep(value)
