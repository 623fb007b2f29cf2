import gzip
import json
import math
import os
import pickle
import shutil
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch
import typer
from typer.testing import CliRunner

from udlib.cli.packing import pack as pack_command
from udlib.course import packed_tables, packed_tensors, packing, recipes
from udlib.course.packed import MOVING, PackedResults
from udlib.course.packed_tensors import tensors_file
from udlib.course.packing import PREPARING, file_name, pack
from udlib.methods import recipe
from udlib.training.checkpoints import load_checkpoint, save_checkpoint

ROOT = Path(__file__).parents[1]
TABLES = {"metrics.csv", "history.csv.gz", "provenance.json"}


def store_run(folder, one, *, logits=("val_logits", "test_logits"), dtype=torch.float16, **changes):
    """A run as `store.save` writes it, with numbers that are hard to write down; returns its key."""
    draws = torch.Generator().manual_seed(one.training.seed)
    state = {
        "recipe": {"method": one.method} | one.choices(),
        "metrics": {"val": {"mAP": 0.1 + 0.2, "ECE": 1e-300}, "test": {"mAP": 1 / 3, "ECE": math.nan, "CorLoc": 1.0}},
        "history": [{"epoch": 1, "total": 2.0}, {"epoch": 2, "total": 1e-05, "mAP": 0.25, "half": 2}],
        "provenance": {"torch": "2", "seconds": 1.5 + one.training.seed, "data": 'ab, "cd"'},
    } | changes
    tensors = {name: torch.randn(5, 3, generator=draws).to(dtype) for name in logits}
    save_checkpoint(folder / one.key, tensors, json.loads(json.dumps(state)))
    return one.key


def text(state):
    """A state with the order of its keys; NaN is like itself there."""
    return json.dumps({name: state[name] for name in ("recipe", "metrics", "history", "provenance")})


@pytest.fixture
def runs(tmp_path):
    """Two groups of runs, and their folder: `lambda/0`, `lambda/1` and `size` share the run of seed 0."""
    folder = tmp_path / "runs"
    plain = [store_run(folder, recipe(seed=seed)) for seed in range(2)]
    branched = [store_run(folder, recipe(seed=seed, lam=1.0), logits=()) for seed in range(2)]
    wide = store_run(folder, recipe(network="small_wide"), logits=("test_logits",))
    return folder, {"lambda/0": plain, "lambda/1": branched, "size/wide": [plain[0], wide]}


@pytest.fixture
def results(runs, tmp_path):
    """The runs of the fixture `runs`, packed."""
    pack(*runs[:1], tmp_path / "results", runs[1])
    return tmp_path / "results"


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def require_equal(source, packed, keys):
    for key in keys:
        tensors, state = load_checkpoint(source / key)
        assert text(packed.state(key)) == text(state), key
        logits = packed.logits(key)
        assert logits.keys() == tensors.keys()
        assert all(logits[name].dtype == torch.float16 and torch.equal(logits[name], tensors[name]) for name in tensors)


def test_every_number_comes_back_and_each_run_stands_in_one_file(runs, results):
    source, groups = runs
    packed = PackedResults(results)
    assert packed.keys() == {key for keys in groups.values() for key in keys}
    require_equal(source, packed, packed.keys())
    assert set(contents(results)) == TABLES | {"logits/lambda.safetensors", "logits/size.safetensors"}
    shared, wide = groups["size/wide"]
    assert packed.row(shared).groups == ("lambda/0", "size/wide") and packed.row(shared).logits == "lambda"
    assert (packed.row(wide).logits, packed.row(groups["lambda/1"][0]).logits) == ("size", "")
    with safetensors.safe_open(results / "logits" / "size.safetensors", "pt") as file:
        assert list(file.keys()) == [f"{wide}/test_logits"]


def test_what_is_not_packed_is_none_or_empty(results, tmp_path):
    for packed in (PackedResults(results), PackedResults(tmp_path / "nowhere")):
        assert packed.state("other") is None is packed.row("other") is packed.network("other")
        assert packed.logits("other") == {} and packed.network_keys() == set()
    assert PackedResults(tmp_path / "nowhere").keys() == set()


SHIPPED = ROOT / "data" / "results"


def shipped_run(key, folder):
    """The folder of a run that ships, as `store.save` wrote it: copied, or made from the packed results."""
    if (SHIPPED / key / "state.json").exists():
        shutil.copytree(SHIPPED / key, folder / key)
    else:
        save_checkpoint(folder / key, PackedResults(SHIPPED).logits(key), PackedResults(SHIPPED).state(key))


def test_shipped_runs_of_every_kind_come_back_bit_by_bit(tmp_path):
    groups = {
        name: [one.key for one in recipes.groups()[name][:2]]
        for name in (
            "lambda/0.1",
            "scale/paper, lambda 0.1",
            "hard labels/1/k softmax",
            "digits/UD",
            "distilled/small_wide to small, UD, w held constant",
            "restart/UD",
            "parallel/teachers, k = 3, CGP",
            "parallel/k = 3, both",
            "detection/teacher, grid",
            "detection/features",
        )
    }
    keys = {key for members in groups.values() for key in members}
    for key in keys:
        shipped_run(key, tmp_path / "runs")
    pack(tmp_path / "runs", tmp_path / "results", groups)
    assert PackedResults(tmp_path / "results").keys() == keys
    require_equal(tmp_path / "runs", PackedResults(tmp_path / "results"), keys)


def test_packing_twice_writes_nothing_and_the_same_runs_make_the_same_bytes(runs, results, tmp_path):
    before = contents(results)
    assert pack(*runs[:1], results, runs[1]) == []
    pack(*runs[:1], tmp_path / "again", dict(reversed(runs[1].items())))
    again = contents(tmp_path / "again")
    assert contents(results) == before
    assert again["history.csv.gz"] == before["history.csv.gz"]
    shutil.rmtree(tmp_path / "again")
    pack(*runs[:1], tmp_path / "again", runs[1])
    assert contents(tmp_path / "again") == before


def test_another_group_leaves_the_packed_logits_alone_and_needs_no_old_folders(runs, results, tmp_path):
    before, other = contents(results), tmp_path / "other"
    keys = [store_run(other, recipe(data="digits", seed=seed)) for seed in range(3)]
    shared = runs[1]["lambda/0"][0]
    written = pack(other, results, {"photos/0": [*keys, shared]})
    names = {path.relative_to(results).as_posix() for path in written}
    assert names == TABLES | {"logits/photos.safetensors"}
    after = contents(results)
    assert all(after[name] == before[name] for name in before if name not in TABLES)
    packed = PackedResults(results)
    require_equal(other, packed, keys)
    require_equal(runs[0], packed, {key for members in runs[1].values() for key in members})
    assert packed.row(shared).groups == ("lambda/0", "size/wide", "photos/0") and packed.row(shared).logits == "lambda"


def test_packed_logits_and_numbers_change_only_where_replace_is_true(runs, results):
    source, groups = runs
    before = contents(results)
    late = store_run(source, recipe(seed=7))
    with pytest.raises(ValueError, match=r"lambda.safetensors' is packed already and would change: give .* --replace"):
        pack(source, results, groups | {"lambda/late": [late]})
    branched = groups["lambda/1"][0]
    store_run(source, recipe(lam=1.0), logits=(), metrics={"val": {"mAP": 0.5}, "test": {"mAP": 0.5}})
    with pytest.raises(
        ValueError, match=f"the run {branched} in '.*' differs from the packed one: delete .*replace=True"
    ):
        pack(source, results, groups)
    assert contents(results) == before
    pack(source, results, groups | {"lambda/late": [late]}, replace=True)
    packed = PackedResults(results)
    require_equal(source, packed, packed.keys())
    assert late in packed.keys() and packed.row(branched).metrics["val"] == {"mAP": 0.5}


def test_logits_that_do_not_ship_are_left_out_and_their_file_goes(runs, results):
    source, groups = runs
    shared, wide = groups["size/wide"]
    pack(source, results, groups, replace=True, keeps=lambda key, name: key == shared and name == "test_logits")
    packed = PackedResults(results)
    assert set(contents(results)) == TABLES | {"logits/lambda.safetensors"} == {*packed.digests, "provenance.json"}
    assert (
        packed.logits(shared).keys() == {"test_logits"} and packed.logits(wide) == {} and packed.row(wide).logits == ""
    )


@pytest.mark.parametrize("half", [False, True])
def test_a_network_comes_back_in_float32_with_its_recipe(runs, tmp_path, half):
    source, groups = runs
    key = groups["lambda/0"][0]
    state = {"weight": torch.randn(4, 3), "steps": torch.tensor(7), "bias": torch.tensor([1e-3, 2.0])}
    save_checkpoint(source / "models" / key, state, {"recipe": {"method": "supervised"}})
    save_checkpoint(source / "models" / "of-no-group", state, {"recipe": {}})
    results = tmp_path / "results"
    pack(source, results, groups, half=half)
    packed = PackedResults(results)
    tensors, saved = packed.network(key)
    assert packed.network_keys() == {key} and saved == {"method": "supervised"} and tensors.keys() == state.keys()
    for name, value in state.items():
        rounded = value.half().float() if half and value.is_floating_point() else value
        assert tensors[name].dtype == value.dtype and torch.equal(tensors[name], rounded)
    assert pack(source, results, groups, half=not half) == [], "a packed network keeps its precision"
    save_checkpoint(source / "models" / key, {**state, "bias": torch.ones(2)}, {"recipe": {"method": "supervised"}})
    with pytest.raises(ValueError, match=f"{key}.safetensors' is packed already and would change"):
        pack(source, results, groups, half=half)


def test_a_network_that_float16_cannot_hold_is_refused(runs, tmp_path):
    source, groups = runs
    key = groups["lambda/0"][0]
    save_checkpoint(source / "models" / key, {"weight": torch.tensor([1e6])}, {"recipe": {}})
    with pytest.raises(ValueError, match=r"float16 cannot hold 'weight' .*half=False"):
        pack(source, tmp_path / "results", groups, half=True)
    pack(source, tmp_path / "results", groups)
    assert PackedResults(tmp_path / "results").network(key)[0]["weight"] == 1e6


def test_what_cannot_be_packed_is_refused_and_nothing_is_written(runs, tmp_path):
    source, groups = runs
    results, (first, second) = tmp_path / "results", groups["lambda/0"]
    results.mkdir()

    def refuses(words, groups=groups, **options):
        with pytest.raises(ValueError, match=words):
            pack(source, results, groups, **options)
        assert list(results.iterdir()) == []

    refuses(
        "the run nowhere of the group 'a' is neither in .* train it with `udlib runs --only nowhere`",
        {"a": ["nowhere"]},
    )
    refuses("the group 'a; b' has '; ' in its name", {"a; b": [first]})
    refuses("holds no trained network: train it", networks={first: tmp_path / "none"})
    store_run(source, recipe(), metrics={"val": {}, "test": {"mAP": 0.5}})
    refuses(f"the tables cannot hold the run {first}")
    store_run(source, recipe(), metrics={"test": {"mAP": 0.5}})
    tensors, _ = load_checkpoint(source / first)
    store_run(source, recipe(), dtype=torch.float32)
    refuses("holds .(val|test)_logits. as torch.float32, and its metrics follow")
    save_checkpoint(source / first, tensors, {"recipe": {"method": "supervised"}})
    refuses("holds no run of the course .'metrics'.: move it away")
    shutil.rmtree(source / first)
    shutil.copytree(source / second, source / first)
    refuses(f"holds the run {second}, which is not its name")
    next((source / first).glob("*.safetensors")).write_bytes(b"cut")
    refuses("is damaged, it differs from what was saved")


def reading(results):
    """Everything that can be read, as the commands and lessons read it."""
    packed = PackedResults(results)
    for key in packed.keys():
        packed.state(key), packed.logits(key)
    return {key: packed.network(key) for key in packed.network_keys()}


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", sorted(TABLES - {"provenance.json"}) + ["logits/lambda.safetensors"])
@pytest.mark.parametrize(
    "damage, words",
    [
        (flip, "is damaged, it differs from what was packed"),
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "is damaged, it differs from what was packed"),
        (lambda path: path.write_bytes(b""), "is damaged, it differs from what was packed"),
        (lambda path: path.write_bytes(pickle.dumps({"a": 1})), "is damaged, it differs from what was packed"),
        (Path.unlink, "packed results lack the file"),
    ],
    ids=["flipped", "cut", "empty", "pickled", "missing"],
)
def test_a_damaged_file_is_named_with_the_remedy(results, name, damage, words):
    damage(results / name)
    with pytest.raises(ValueError, match=words) as error:
        reading(results)
    assert name.split("/")[-1] in str(error.value) and f"git checkout -- {results}" in str(error.value)


@pytest.mark.parametrize(
    "content, words",
    [
        (None, "provenance.json', which has the SHA-256 of the others"),
        (b"{", "provenance.json' is damaged"),
        (b"[]", "provenance.json' is damaged"),
        (b"{}", "provenance.json' is damaged"),
        (pickle.dumps({}), "provenance.json' is damaged"),
        (b'{"format": 2, "files": {"metrics.csv": "", "history.csv.gz": ""}}', "has format 2, .* reads format 1"),
    ],
    ids=["missing", "cut", "a list", "empty", "pickled", "of another format"],
)
def test_a_damaged_provenance_is_named_with_the_remedy(results, content, words):
    path = results / "provenance.json"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(ValueError, match=words + ".*restore"):
        PackedResults(results).keys()


def forge(results, name, content):
    """Put other content in a file's place, with the SHA-256 that belongs to it."""
    (results / name).write_bytes(content)
    sources = json.loads((results / "provenance.json").read_bytes())
    sources["files"][name] = packing._digest(content)
    (results / "provenance.json").write_text(json.dumps(sources))


class Bomb:
    """Unpickling this makes a file."""

    def __reduce__(self):
        return os.mkdir, ("exploded",)


def test_a_pickled_file_is_never_opened_even_with_the_right_digest(results, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    forge(results, "logits/lambda.safetensors", pickle.dumps(Bomb()))
    with pytest.raises(
        ValueError, match="lambda.safetensors' is not a safetensors file .* pickled files are never opened"
    ):
        reading(results)
    assert not (tmp_path / "exploded").exists()


def test_tables_that_contradict_one_another_are_refused(results, runs):
    wide = runs[1]["size/wide"][1]
    whole = contents(results)
    header, *lines = whole["metrics.csv"].decode().splitlines(keepends=True)

    def refuses(words, table):
        forge(results, "metrics.csv", "".join(table).encode())
        with pytest.raises(ValueError, match=words + ".*restore"):
            reading(results)

    refuses(f"metrics.csv' has the run {lines[1].split(',')[0]} twice", [header, *lines, lines[1]])
    refuses("metrics.csv' has a row of 2 cells for", [header, "a,b\n"])
    refuses("metrics.csv' starts with the columns", lines)
    refuses("provenance.json' does not describe the run x-", [header, lines[0].replace("scenes", "x", 1)])
    forge(results, "metrics.csv", whole["metrics.csv"])
    forge(results, "logits/size.safetensors", tensors_file({"other/val_logits": torch.zeros(1)}, {}))
    with pytest.raises(ValueError, match=f"size.safetensors' holds no logits of {wide}"):
        PackedResults(results).logits(wide)
    sources = json.loads((results / "provenance.json").read_bytes())
    del sources["files"]["logits/size.safetensors"]
    (results / "provenance.json").write_text(json.dumps(sources))
    with pytest.raises(ValueError, match="provenance.json' does not list 'logits/size.safetensors'"):
        PackedResults(results).logits(wide)
    (results / "models").mkdir()
    forge(results, "models/x.safetensors", tensors_file({"weight": torch.zeros(1)}, {}))
    with pytest.raises(ValueError, match="x.safetensors' does not say which recipe"):
        PackedResults(results).network("x")


def test_whenever_packing_is_killed_the_old_results_are_read_or_the_new_ones(runs, results, tmp_path, monkeypatch):
    """The kill is an error at the k-th step that changes the disk; afterwards `pack` ends what it began."""
    source, groups = runs
    late = store_run(source, recipe(seed=7))
    wanted = groups | {"lambda/late": [late], "new": [store_run(source, recipe(seed=8))]}
    old = PackedResults(results).states()
    pack(source, shutil.copytree(results, tmp_path / "whole"), wanted, replace=True)
    new, whole = PackedResults(tmp_path / "whole").states(), contents(tmp_path / "whole")
    assert old.keys() < new.keys()
    outcomes = []
    for k in range(40):
        folder = shutil.copytree(results, tmp_path / f"killed-{k}")
        left = [k]

        def step(call, *arguments, left=left, **options):
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return call(*arguments, **options)

        with monkeypatch.context() as patch:
            for module, name in ((os, "replace"), (shutil, "rmtree"), (Path, "unlink"), (Path, "mkdir")):
                whole_call = getattr(module, name)
                patch.setattr(module, name, lambda *a, whole_call=whole_call, **o: step(whole_call, *a, **o))
            try:
                pack(source, folder, wanted, replace=True)
                killed = False
            except KeyboardInterrupt:
                killed = True
        states = PackedResults(folder).states()
        reading(folder)
        assert json.dumps(states, sort_keys=True) in [json.dumps(x, sort_keys=True) for x in (old, new)], k
        outcomes.append(states.keys() == new.keys())
        pack(source, folder, wanted, replace=True)
        assert contents(folder) == whole, k
        if not killed:
            break
    assert not killed and outcomes == sorted(outcomes) and len(set(outcomes)) == 2, "some kill came before, some after"
    assert not (folder / PREPARING).exists() and not (folder / MOVING).exists()


def test_changed_tables_are_read_again_in_the_same_process(runs, results):
    packed = PackedResults(results)
    before = packed.keys()
    late = store_run(runs[0], recipe(data="digits"))
    pack(runs[0], results, {"digits": [late]})
    assert packed.keys() == before | {late}


def test_values_of_every_kind_survive_the_tables():
    values = {
        "int": 3,
        "float": 3.0,
        "small": 5e-324,
        "odd": 0.1 + 0.2,
        "minus": -0.0,
        "inf": math.inf,
        "text": '1.5, "x"',
    }
    values |= {"none": None, "true": True, "list": [1, 2.5], "exponent": 1e16, "big": 2**70, "nothing": ""}
    histories = {"b": [values, {"late": 1}], "a": [{"int": 1}]}
    history = packed_tables.split_history(packed_tables.history_table(histories))
    assert json.dumps([history.epochs(key) for key in "abc"]) == json.dumps([histories["a"], histories["b"], []])
    rows = {"k": packed_tables.Row({"method": "m", "seed": 2}, {"val": values, "test": {"a b": 1}}, ("g/1", "h"), "g")}
    columns, cells = packed_tables.split_metrics(packed_tables.metrics_table(rows))
    assert repr(packed_tables.metrics_row(columns, cells["k"])) == repr(rows["k"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.int64, torch.bool])
@pytest.mark.parametrize("shape", [(), (0, 3), (1,), (500, 16), (3, 2, 5)])
def test_every_bit_of_a_tensor_survives_its_file(tmp_path, dtype, shape):
    draws = 10 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    tensors = {
        "a/x": draws.to(dtype),
        "b": (draws.mT if draws.dim() > 1 else -draws).to(dtype),
        "empty": torch.zeros(0),
    }
    (tmp_path / "file").write_bytes(packed_tensors.tensors_file(tensors, {"note": "é"}))
    again, metadata = packed_tensors.read_tensors(tmp_path / "file", lambda name: True)
    assert metadata == {"note": "é"} and again.keys() == tensors.keys()
    for name, value in tensors.items():
        assert again[name].dtype == value.dtype and again[name].shape == value.shape
        assert again[name].contiguous().numpy().tobytes() == value.contiguous().numpy().tobytes()
    assert packed_tensors.read_tensors(tmp_path / "file", lambda name: name == "b")[0].keys() == {"b"}


def test_logits_shrink_by_a_seventh_and_nan_and_infinity_survive(tmp_path):
    logits = (3 * torch.randn(4000, 16, generator=torch.Generator().manual_seed(0))).half()
    logits[0, :4] = torch.tensor([math.nan, math.inf, -math.inf, -0.0]).half()
    (tmp_path / "file").write_bytes(packed_tensors.tensors_file({"x": logits}, {}))
    again = packed_tensors.read_tensors(tmp_path / "file", lambda name: True)[0]["x"]
    assert again.numpy().tobytes() == logits.numpy().tobytes()
    assert (tmp_path / "file").stat().st_size < 6 / 7 * 2 * logits.numel(), (
        "real ones, less even than these, by a fifth"
    )


@pytest.mark.parametrize(
    "note",
    ["{}", "[1]", '[{"x": ["float16", [9]]}, {}]', '[{"x": ["object", [1]]}, {}]', '[{"x": ["float16", [-2]]}, {}]'],
)
def test_a_safetensors_file_of_another_kind_is_refused(tmp_path, note):
    content = safetensors.torch.save({"x": torch.zeros(3, dtype=torch.uint8)}, metadata={packed_tensors.SHRUNK: note})
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match="is not a file of packed tensors"):
        packed_tensors.read_tensors(tmp_path / "file", lambda name: True)


def test_the_history_has_no_time_stamp_and_provenance_says_shared_values_once():
    histories = {"a": [{"epoch": 1}]}
    content = packed_tables.history_table(histories)
    assert content[4:8] == b"\0\0\0\0" and gzip.decompress(content) == b"key,epoch\na,1\n"
    provenances = {str(k): {"torch": "2.1", "seconds": k / 7, "data": "abc"[k % 2 :]} for k in range(20)}
    table = packed_tables.provenance_table(provenances)
    assert len(table["shared"]) == 2 and table["runs"]["4"] == [0, {"seconds": 4 / 7}]
    for key, provenance in provenances.items():
        assert json.dumps(packed_tables.provenance_of(table, key)) == json.dumps(provenance)


def test_columns_agree_with_every_order_where_that_is_possible():
    assert packed_tables.common_order([{"a": 1, "c": 1}, {"b": 1, "c": 1}, {"a": 1, "b": 1}]) == ["a", "b", "c"]
    assert packed_tables.common_order([{"a": 1, "b": 1}, {"b": 1, "a": 1}]) == ["a", "b"]


@pytest.mark.parametrize(
    "group, name", [("lambda/0.1", "lambda"), ("quick", "quick"), ("hard labels/1/k softmax", "hard-labels")]
)
def test_groups_of_one_family_share_a_file(group, name):
    assert file_name(group) == name


def test_all_metrics_of_the_course_are_read_in_half_a_second(tmp_path):
    metrics = {split: {f"metric {k}": math.sin(k) for k in range(50)} for split in ("val", "test")}
    rows = {f"run-{k}": packed_tables.Row({"method": "m", "seed": k}, metrics) for k in range(500)}
    content = packed_tables.metrics_table(rows)

    def seconds():
        start = time.process_time()
        columns, cells = packed_tables.split_metrics(content)
        assert all(packed_tables.metrics_row(columns, cells[key]).metrics == metrics for key in rows)
        return time.process_time() - start

    assert min(seconds() for _ in range(3)) < 0.5


@pytest.fixture
def course(runs, tmp_path, monkeypatch):
    """A checkout whose course has the groups of `runs`, all trained; the folder of its results."""
    folder, groups = runs
    by_key = {key: recipe(**load_checkpoint(folder / key)[1]["recipe"]) for keys in groups.values() for key in keys}
    monkeypatch.setattr(
        recipes, "groups", lambda: {name: [by_key[key] for key in keys] for name, keys in groups.items()}
    )
    monkeypatch.setattr(recipes, "keeps_logits", lambda one, split="test": one.network == "small")
    monkeypatch.setattr(recipes, "keeps_weights", lambda one: one == recipe())
    monkeypatch.setattr("udlib.datasets.base.checkout", lambda: tmp_path)
    monkeypatch.setenv("UDLIB_DATA", str(tmp_path))
    monkeypatch.setenv("UDLIB_PROFILE", "course")
    return tmp_path / "data" / "results"


def run_pack(*words):
    return CliRunner().invoke(command, [*words], catch_exceptions=False)


command = typer.Typer()
command.command()(pack_command)


def test_the_command_packs_own_runs_and_says_what_it_wrote(course, runs, tmp_path):
    source, groups = runs
    first = groups["lambda/0"][0]
    save_checkpoint(source.parent / "models" / first, {"weight": torch.ones(3)}, {"recipe": {}})
    plan = run_pack("--plan")
    assert plan.exit_code == 0 and not course.exists()
    assert "would write logits/lambda.safetensors: 0.00 MB" in plan.output
    result = run_pack()
    assert result.exit_code == 0 and "lambda: 4 runs, 0 packed, 4 in" in result.output
    assert plan.output.replace("would write", "wrote").splitlines()[:-1] == result.output.splitlines()[:-1]
    assert "holds 5 files of 0.0" in result.output.replace("\n", " ")
    packed = PackedResults(course)
    assert packed.network_keys() == {first} and packed.network(first)[0]["weight"].tolist() == [1, 1, 1]
    assert packed.keys() == {key for keys in groups.values() for key in keys}
    assert packed.logits(groups["size/wide"][1]) == {} and packed.logits(first).keys() == {"val_logits", "test_logits"}
    again = run_pack()
    assert "nothing to write: all that is trained is packed already" in again.output and again.exit_code == 0


def test_the_command_leaves_out_a_family_with_untrained_runs(course, runs):
    source, groups = runs
    shutil.rmtree(source / groups["lambda/1"][1])
    result = run_pack()
    assert result.exit_code == 1
    assert "1 are not trained, so it is left out (`udlib runs --only 'lambda*'`)" in result.output.replace("\n", " ")
    assert PackedResults(course).keys() == set(groups["size/wide"])
    assert run_pack("--group", "size").exit_code == 0
    store_run(source, recipe(seed=1, lam=1.0), logits=())
    result = run_pack("--group", "lambda/0")
    assert result.exit_code == 0 and "lambda: 4 runs, 1 packed, 4 in" in result.output
    assert PackedResults(course).row(groups["lambda/0"][0]).logits == "size", "where it was packed first"
    assert PackedResults(course).keys() == {key for keys in groups.values() for key in keys}


def test_the_command_refuses_runs_of_the_smoke_profile_and_unknown_groups(course, monkeypatch):
    with pytest.raises(ValueError, match="no recipe matches 'nothing'"):
        run_pack("--group", "nothing")
    monkeypatch.setenv("UDLIB_PROFILE", "smoke")
    with pytest.raises(ValueError, match="too small to ship"):
        run_pack()
