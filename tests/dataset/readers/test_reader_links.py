import pytest

from retrieval_ft.dataset.readers.links import Links

KNOWN = frozenset(
    ("index.md", "guide/index.md", "guide/install.md", "guide/a b.html", "api/README.md", "x.txt")
)


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("install.md", "guide/install.md"),
        ("./install.md#on-linux", "guide/install.md#on-linux"),
        ("../x.txt", "x.txt"),
        ("/x.txt", "x.txt"),
        ("a%20b.html", "guide/a b.html"),
        ("install", "guide/install.md"),
        ("/guide/", "guide/index.md"),
        ("../api", "api/README.md"),
        ("/", "index.md"),
        ("..", "index.md"),
        (".", "guide/index.md"),
        ("#here", "guide/use.md#here"),
        ("", "guide/use.md"),
        ("install.md?raw=1#x", "guide/install.md#x"),
        ("gone.md", "guide/gone.md"),
        ("../../outside.md", "../../outside.md"),
        ("https://example.org/a#b", "https://example.org/a#b"),
        ("//example.org/a", "//example.org/a"),
        ("mailto:me@example.org", "mailto:me@example.org"),
        ("http://[broken", "http://[broken"),
        ("?page=2", "?page=2"),
    ],
)
def test_a_link_points_at_a_document_below_the_root_or_stays_as_it_is(address, target):
    assert Links("guide/use.md", KNOWN).resolve(address) == target


def test_a_document_at_the_root_resolves_from_there():
    assert Links("index.md", KNOWN).resolve("guide/install") == "guide/install.md"
