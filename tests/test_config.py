from pathlib import Path

import pytest
from pydantic import ValidationError

from retrieval_ft.config import Config, dump, from_mapping, load
from retrieval_ft.errors import ConfigError

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))
DATA = {"data": {"path": "my-data"}}


def config(*overrides, **sections):
    return from_mapping({**DATA, **sections}, overrides, source="test.yaml")


def fault(*overrides, **sections):
    with pytest.raises(ConfigError) as caught:
        config(*overrides, **sections)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_a_yaml_file_is_read_and_set_wins_over_it(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(
        "data: {path: here}\ntraining: {learning_rate: 3e-5, epochs: 1}\nlexical: {stemmer: null}\n"
    )
    found = load(path, ["training.epochs=7"])
    assert found.data.path == Path("here")
    assert (found.training.learning_rate, found.training.epochs) == (3e-5, 7)
    assert found.lexical.stemmer is None


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("training.learning_rate=5e-5", 5e-5),
        ("training.learning_rate=0.001", 0.001),
        ("training.epochs=3", 3),
        ("training.graph_tokens=null", None),
        ("training.soup_alphas=[1, 0.5]", (1.0, 0.5)),
        ("model.query_prompt='find: '", "find: "),
        ("model.query_prompt=", None),
        ("model.base=a=b", "a=b"),
        ("model.base=infinity", "infinity"),
        ("lexical.stemmer=null", None),
    ],
)
def test_set_takes_yaml_values_by_dotted_path(override, value):
    section, key = override.partition("=")[0].split(".")
    assert getattr(getattr(config(override), section), key) == value


def test_set_makes_a_section_that_the_file_lacks_and_leaves_its_input_alone():
    given = {"data": {"path": "x"}}
    found = from_mapping(given, ["data.path=y", "training.epochs=4"], source="s")
    assert (str(found.data.path), found.training.epochs) == ("y", 4)
    assert given == {"data": {"path": "x"}}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.epochs", "the form is a.b=value"),
        ("=3", "the form is a.b=value"),
        ("training.epochs=[1", "not valid YAML"),
        ("data.path.deeper=1", "'path' holds a value, not a section"),
    ],
)
def test_a_malformed_set_is_quoted_back(override, words):
    assert words in fault(override) and override in fault(override)


@pytest.mark.parametrize(
    ("override", "unknown", "near"),
    [
        ("training.epoch=3", "training.epoch", "training.epochs"),
        ("training.learning_rat=1", "training.learning_rat", "training.learning_rate"),
        ("trainng.epochs=3", "trainng", "training"),
        ("training.margin=0.9", "training.margin", "mining.margin"),
        ("data.base=x", "data.base", "model.base"),
        ("learning_rate=1", "learning_rate", "training.learning_rate"),
        ("räte=1", "räte", ""),
    ],
)
def test_an_unknown_key_names_the_nearest_valid_one(override, unknown, near):
    assert f"test.yaml: {unknown}: unknown key; did you mean {near}" in fault(override)


def test_an_unknown_key_lists_what_its_section_allows():
    assert "(allowed here: k1, b, stemmer, stop_words, bigrams, engine)" in fault("lexical.k2=1")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.epochs=many", "training.epochs: Input should be a valid integer"),
        ("training.epochs=0", "training.epochs: Input should be greater than or equal to 1"),
        ("training.soup_alphas=[0.5]", "training.soup_alphas: Value error, alphas lie in (0, 1]"),
        ("model.query_prompt=find: ", "model.query_prompt: Input should be a valid string"),
        ("model.device=tpu", "model.device: String should match pattern"),
        ("model.precision=fp8", "model.precision: Input should be 'auto', 'bf16' or 'fp32'"),
        ("name=../up", "name: String should match pattern"),
        ("data=3", "data: Input should be a valid dictionary"),
    ],
)
def test_a_value_of_the_wrong_kind_is_named_by_its_path_and_shown(override, words):
    message = fault(override)
    assert f"test.yaml: {words}" in message
    assert "(found " in message


def test_every_fault_has_a_line():
    message = fault("training.epochs=no", "mining.depht=3")
    assert "training.epochs: Input" in message and "mining.depht: unknown key" in message
    assert len(message.splitlines()) == 2


@pytest.mark.parametrize("data", [{}, {"path": "x", "builder": "cwe"}, {"path": "x", "name": "y"}])
def test_the_data_is_named_in_one_way(data):
    assert "data: give one of data.path (documents, rows or a folder in BEIR layout)" in fault(
        data=data
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"a: [1", "not valid YAML"), (b"- 1\n", "a mapping is needed, found list"), (b"\xff", "not")],
)
def test_a_file_that_is_no_mapping_is_refused_by_name(tmp_path, content, words):
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"bad\.yaml: .*" + words):
        load(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml: no such config file"):
        load(tmp_path / "none.yaml")


def test_what_is_dumped_loads_to_the_same(tmp_path):
    found = config("training.learning_rate=3e-7", "name=a-b", "model.query_prompt='ü: '", "seed=0")
    path = tmp_path / "resolved.yaml"
    path.write_text(dump(found), encoding="utf-8")
    assert load(path) == found
    assert dump(load(path)) == dump(found)


def test_it_is_frozen():
    found = config()
    with pytest.raises(ValidationError):
        found.seed = 3
    with pytest.raises(ValidationError):
        found.training.epochs = 3
    assert isinstance(found, Config)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_shipped_config_loads_and_says_when_to_choose_it(path):
    found = load(path)
    assert found.name
    assert path.read_text(encoding="utf-8").startswith("# Choose this ")
