import pytest
from mres_kernels._dispatch import dispatch


def accept(x):
    return f"accepted {x}"


def decline(x):
    raise NotImplementedError(f"no {x} here")


def test_the_first_that_accepts_is_used():
    assert (
        dispatch("op", {"a": decline, "b": accept, "c": decline}, None, "call") == "accepted call"
    )


def test_a_request_by_name_never_falls_back():
    with pytest.raises(NotImplementedError, match="no call here"):
        dispatch("op", {"a": decline, "b": accept}, "a", "call")


def test_an_unknown_name_is_refused_with_those_that_exist():
    with pytest.raises(ValueError, match=r"^op: unknown implementation 'x'; have \['a', 'b'\]\.$"):
        dispatch("op", {"b": accept, "a": decline}, "x", "call")


def test_the_environment_names_one_where_the_call_does_not(monkeypatch):
    both = {"a": accept, "b": decline}
    monkeypatch.setenv("MRES_OP", "b")
    assert dispatch("op", both, "a", "call") == "accepted call"
    with pytest.raises(NotImplementedError, match="no call here"):
        dispatch("op", both, None, "call")
    monkeypatch.setenv("MRES_OP", "x")
    with pytest.raises(ValueError, match=r"unknown implementation 'x' in MRES_OP; have"):
        dispatch("op", both, None, "call")


def test_all_refusals_are_told_at_once():
    with pytest.raises(ExceptionGroup, match="op: no implementation accepts this call") as caught:
        dispatch("op", {"a": decline, "b": decline}, None, "call")
    notes = [(str(error), error.__notes__) for error in caught.value.exceptions]
    assert notes == [
        ("no call here", ["implementation='a'"]),
        ("no call here", ["implementation='b'"]),
    ]


def test_an_error_other_than_a_refusal_is_not_swallowed():
    def broken(x):
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        dispatch("op", {"a": broken, "b": accept}, None, "call")
