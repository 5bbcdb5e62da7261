"""Lines of keys: whatever tomllib finds in a text has a line, and it is the right one."""

import json
import tomllib

from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.config.lines import dotted, line_of, locate

TEXT = '''\
# a comment = 1
hostname = "mail" # [not.a.table]
smtp.listen = [
  "a", # ]
  "]",
  { deep = { er = [1,
     2] } },
]
"quoted.key" = """
x = 1
\\"" """
'literal "key"' = \'\'\'
[y]\'\'\'

[[relay]]
from = "1"
[[relay]] # second
from = "2"
  [relay.sub]
  key = 2

[domains."example.test".aliases]
team = ["a",
  "b"]
"caf\\u00e9" = 1979-05-27 07:32:00
'''


def test_lines_of_a_real_text():
    lines = locate(TEXT)
    assert {dotted(path): line for path, line in lines.items()} == {
        "hostname": 2,
        "smtp": 3,
        "smtp.listen": 3,
        "smtp.listen[1]": 4,
        "smtp.listen[2]": 5,
        "smtp.listen[3]": 6,
        "smtp.listen[3].deep": 6,
        "smtp.listen[3].deep.er": 6,
        "smtp.listen[3].deep.er[1]": 6,
        "smtp.listen[3].deep.er[2]": 7,
        '"quoted.key"': 9,
        '"literal "key""': 12,
        "relay": 15,
        "relay[1]": 15,
        "relay[1].from": 16,
        "relay[2]": 17,
        "relay[2].from": 18,
        "relay[2].sub": 19,
        "relay[2].sub.key": 20,
        "domains": 22,
        'domains."example.test"': 22,
        'domains."example.test".aliases': 22,
        'domains."example.test".aliases.team': 23,
        'domains."example.test".aliases.team[1]': 23,
        'domains."example.test".aliases.team[2]': 24,
        'domains."example.test".aliases."café"': 25,
    }


def test_what_is_missing_has_the_line_of_its_table():
    lines = locate("a = 1\n[[relay]]\nfrom = 1\n")
    assert line_of(lines, ("relay", 0, "action")) == 2
    assert line_of(lines, ("nowhere", "at", "all")) == 1


def paths(tree, path=()):
    """Every path of a parsed tree."""
    members = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in members:
        yield (*path, key)
        yield from paths(value, (*path, key))


names = st.sampled_from(["a", "b", "c-d", "e.f", "", "ü", 'q"', "#", "[x]", "1"])
scalars = st.one_of(
    st.integers(),
    st.booleans(),
    st.text(alphabet="ab\"'#[]{}=,.\\\n", max_size=8),
)


class Renderer:
    """Writes a tree as TOML in one of many ways and remembers on which line it put what."""

    def __init__(self, draw):
        self.draw, self.text, self.lines = draw, "", {}

    def put(self, text):
        self.text += text

    def mark(self, path):
        self.lines.setdefault(path, self.text.count("\n") + 1)

    def key(self, name):
        bare = name.isascii() and name.replace("-", "").isalnum()
        if bare and self.draw(st.booleans()):
            self.put(name)
        elif "'" not in name and self.draw(st.booleans()):
            self.put(f"'{name}'")
        else:
            self.put(json.dumps(name))

    def gap(self):
        self.put(self.draw(st.sampled_from(["", " ", "\n", " # x = [1\n", "\n\n\t"])))

    def string(self, value):
        plain = all(c not in value for c in "\\\n'")
        if plain and self.draw(st.booleans()):
            self.put(f"'{value}'")
        elif self.draw(st.booleans()):
            self.put('"""\n' + value.replace("\\", "\\\\").replace('"""', '\\"""').removesuffix('"'))
            self.put('"' if value.endswith('"') and not value.endswith('""') else "")
            self.put('"""')
        else:
            self.put(json.dumps(value))

    def value(self, value, path):
        if isinstance(value, list):
            self.put("[")
            for n, item in enumerate(value):
                self.gap()
                self.mark((*path, n))
                self.value(item, (*path, n))
                self.gap()
                self.put("," if n < len(value) - 1 or self.draw(st.booleans()) else "")
            self.gap()
            self.put("]")
        elif isinstance(value, dict):
            self.put("{ ")
            for n, (name, item) in enumerate(value.items()):
                self.put(", " if n else "")
                self.pair(name, item, path)
            self.put(" }")
        elif isinstance(value, str):
            self.string(value)
        else:
            self.put(json.dumps(value))

    def pair(self, name, value, path):
        """Dotted where the value allows and the dice say so."""
        path = (*path, name)
        self.mark(path)
        self.key(name)
        while isinstance(value, dict) and len(value) == 1 and self.draw(st.booleans()):
            self.put(self.draw(st.sampled_from([".", " . "])))
            ((name, value),) = value.items()
            path = (*path, name)
            self.mark(path)
            self.key(name)
        self.put(self.draw(st.sampled_from(["=", " = "])))
        self.value(value, path)

    def table(self, tree, path, names):
        """``names`` is the header's path without indexes. Plain values first, as TOML wants it."""
        later = []
        for name, value in tree.items():
            tables = isinstance(value, list) and value and all(isinstance(v, dict) for v in value)
            if (isinstance(value, dict) or tables) and self.draw(st.booleans()):
                later.append((name, value))
            else:
                self.pair(name, value, path)
                self.put(self.draw(st.sampled_from(["\n", " # y\n", "\r\n"])))
        for name, value in later:
            for n, item in enumerate(value if isinstance(value, list) else [value]):
                here = (*path, name, n) if isinstance(value, list) else (*path, name)
                self.header((*names, name), isinstance(value, list))
                self.mark((*path, name))
                self.mark(here)
                self.put("\n")
                self.table(item, here, (*names, name))

    def header(self, names, array):
        self.put("[[" if array else "[")
        for n, name in enumerate(names):
            self.put("." if n else "")
            self.key(name)
        self.put("]]" if array else "]")


def trees(leaf):
    values = st.recursive(
        leaf, lambda v: st.lists(v, max_size=3) | st.dictionaries(names, v, max_size=3), max_leaves=10
    )
    return st.dictionaries(names, values, max_size=4)


@settings(max_examples=300)
@given(trees(scalars), st.data())
def test_every_path_has_the_line_it_was_written_on(tree, data):
    renderer = Renderer(data.draw)
    renderer.table(tree, (), ())
    parsed = tomllib.loads(renderer.text)
    lines = locate(renderer.text)
    assert set(lines) == set(paths(parsed))
    assert lines == renderer.lines


@settings(max_examples=300)
@given(st.text(alphabet="ab=.[]{},\"'\\# \n1", max_size=25))
def test_whatever_tomllib_accepts_is_located(text):
    try:
        parsed = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    assert set(locate(text)) == set(paths(parsed))
