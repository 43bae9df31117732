"""What is shown of text from outside: no secret, and nothing that a terminal obeys."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.support.shown_text import counted, plain_line, printable, without_credentials


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a  b\n  c", "a  b c"),
        ("\x1b[31mred\x00", "\\x1b[31mred\\x00"),
        ("a" * 1001, "a" * 750 + " … " + "a" * 200),
        ("/data/ä ö/5%", "/data/ä ö/5%"),
    ],
)
def test_breaks_become_spaces_and_control_characters_are_written_out(text, shown):
    assert plain_line(text) == shown


@given(st.text())
def test_what_is_printable_is_left_and_all_else_written_out(text):
    shown = printable(text)
    assert shown.isprintable()
    assert shown == text or not text.isprintable()


SECRET = "s3cr3t"
ADDRESSES = [
    ("http://ann:s3cr3t@host:5000/a", "http://host:5000/a"),
    ("https://s3cr3t@host", "https://host"),
    ("postgresql://u:s3cr3t@h/db", "postgresql://h/db"),
    ("mysql+pymysql://u:@s3cr3t@h/db", "mysql+pymysql://h/db"),
    ("http://u:s3/cr3t/s3cr3t@h/db", "http://h/db"),
    ("s3://key:s3cr3t@bucket/em.zarr", "s3://bucket/em.zarr"),
    ("https://h/em.zarr?sig=s3cr3t&se=s3cr3t", "https://h/em.zarr?sig=…&se=…"),
    ("mssql://h/db?user=u&password=s3cr3t#x", "mssql://h/db?user=…&password=…#x"),
    ("filecache::http://u:s3cr3t@h/a", "filecache::http://h/a"),
]
PLAIN = [
    *("models:/mito@champion", "sqlite:////home/ann@lab/mlruns/mlflow.db", "s3://bucket/em.zarr", "data", "a@b: c"),
    *("http://localhost:5000/a@b", "http://[::1]:5000", "ann@host", "file:///a@b/c"),
]


@pytest.mark.parametrize(("address", "shown"), [*ADDRESSES, *((plain, plain) for plain in PLAIN)])
@pytest.mark.parametrize("around", ["{}", "a {}: gone; {} too", "['{}','{}']", "({})"])
def test_an_address_is_shown_without_what_only_its_owner_should_know(around, address, shown):
    if "'" in around and "?" in address:
        return  # what follows a question mark ends at a blank
    said = without_credentials(around.replace("{}", address))
    assert SECRET not in said
    assert said == around.replace("{}", shown)
    assert without_credentials(said) == said
    assert SECRET not in plain_line(address)


@given(st.text(alphabet="ab:/@?=&# %\n", max_size=200))
def test_nothing_between_a_scheme_and_the_last_at_sign_before_its_host_is_left(text):
    assert without_credentials(f"x http://u:{SECRET}@h/{text}").startswith("x http://h/")


def test_one_is_told_of_as_one():
    assert [counted(n, "fault") for n in (0, 1, 2, 1000)] == ["0 faults", "1 fault", "2 faults", "1,000 faults"]
    assert [counted(n, "class is", "classes are") for n in (0, 1, 2)] == [
        "0 classes are",
        "1 class is",
        "2 classes are",
    ]
