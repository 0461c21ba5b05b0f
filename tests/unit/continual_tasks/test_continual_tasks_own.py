"""ArrayStream: rows against the user's arrays, sites, protocols, scale, and every mistake named."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedalt.errors import ConfigError, DataError
from fedalt.scenarios.continual_power_law.own import ArrayStream
from fedalt.scenarios.continual_power_law.protocols import PROTOCOLS
from fedalt.seeds import Seeds
from fedalt.task import StreamTask

Files = dict[str, dict[str, Any]]


def arrays(task: int, classes: tuple[int, ...] = (0, 1, 2), rows: int = 60) -> dict[str, Any]:
    """Make a task whose row k of part p begins with k, so that each can be told from others."""
    rng = np.random.default_rng(task)
    made = {}
    for part, count, sign in (("train", rows, 1), ("test", rows // 2, -1)):
        x = rng.normal(3.0 * task, 2.0, (count, 2, 3)).astype(np.float32)
        x[:, 0, 0] = sign * (1000 * task + np.arange(count))
        made |= {f"{part}_x": x, f"{part}_y": np.resize(classes, count)}
    return made


def three() -> Files:
    names = ("01-summer", "02-autumn", "10-first-snow")
    return {name: arrays(task) for task, name in enumerate(names)}


def write(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> str:
    for name, content in files.items():
        np.savez(folder / f"{name}.npz", **content)
    return str(folder)


def stream(folder: Path, files: Files, **settings: Any) -> ArrayStream:
    made = ArrayStream(write(folder, files), **{"clients": 3, "hidden": [8], **settings})
    assert isinstance(made, StreamTask)
    return made


def whole(task: ArrayStream, site: int, number: int) -> tuple[torch.Tensor, ...]:
    return task.task_data(site, number, np.arange(task.task_rows(site, number)))


def test_rows_are_those_of_the_files(tmp_path: Path) -> None:
    files = three()
    task = stream(tmp_path, files, held_out=0.2)
    assert list(task.tasks) == ["summer", "autumn", "first-snow"]
    for number, content in enumerate(files.values()):
        flat, met = content["train_x"].reshape(60, 6), []
        for site in range(3):
            x, y = whole(task, site, number)
            assert x.dtype == torch.float32 and y.dtype == torch.int64 and x.shape == (16, 6)
            places = x[:, 0].numpy().astype(int) - 1000 * number
            assert np.array_equal(x.numpy(), flat[places])
            assert np.array_equal(y.numpy(), content["train_y"][places])
            some = task.task_data(site, number, np.array([5, 2]))
            assert torch.equal(some[0], x[[5, 2]])
            held = task.site_eval_data(site)[0][task.site_eval_slices(site)[str(number)], 0]
            met += [*places, *(held.numpy().astype(int) - 1000 * number)]
        # No row is in two places, and none is lost.
        assert sorted(met) == list(range(60))
    assert [site.size for site in task.sites] == [48] * 3
    assert torch.equal(task.site_data(1)[0], torch.cat([whole(task, 1, t)[0] for t in range(3)]))
    assert task.row_bytes == 6 * 4 + 1


def test_the_server_judges_by_the_test_rows_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, seen = three(), []

    class Recorder(torch.nn.Module):
        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            seen.append(rows)
            return torch.tensor([[0.0, 1.0, 0.0]]).expand(len(rows), 3)

    for most, count in ((None, 30), (12, 12)):
        task = stream(tmp_path, files, test_rows=most)
        monkeypatch.setattr(task, "model", Recorder)
        found = task.evaluate({})
        for number, (shown, content) in enumerate(zip(seen, files.values(), strict=True)):
            places = -shown[:, 0].numpy().astype(int) - 1000 * number
            assert len(set(places)) == count
            assert np.array_equal(shown.numpy(), content["test_x"].reshape(30, 6)[places])
            wanted = (content["test_y"][places] == 1).mean()
            assert found[f"accuracy/{number}"] == pytest.approx(wanted)
        seen.clear()


def test_sites_are_those_of_the_files(tmp_path: Path) -> None:
    files = three()
    for number, content in enumerate(files.values()):
        content["train_site"] = np.where(np.arange(60) < 20 + number, 1, 0)
    task = stream(tmp_path, files, clients=None, held_out=0.0)
    assert [site.size for site in task.sites] == [40 + 39 + 38, 20 + 21 + 22]
    for number in range(3):
        rows = whole(task, 1, number)[0][:, 0] - 1000 * number
        assert rows.tolist() == list(range(20 + number))
    assert len(stream(tmp_path, files, clients=2).sites) == 2
    with pytest.raises(ConfigError, match=r"task.clients is 5, but train_site .* names 2 sites"):
        stream(tmp_path, files, clients=5)
    capped = stream(tmp_path, files, clients=None, rows=7, held_out=0.5)
    assert [capped.task_rows(site, 2) for site in range(2)] == [7, 7]
    assert [len(rows) for rows in capped.site_eval_slices(1).values()] == [7, 7, 7]
    # A site may be without a task: the stream says so where it brings that task to it.
    files["01-summer"]["train_site"] = np.zeros(60, np.uint8)
    task = stream(tmp_path, files, clients=None, held_out=0.5)
    assert task.task_rows(1, 0) == 0 and set(task.site_eval_slices(1)) == {"1", "2"}
    assert len(task.site_data(1)[0]) == task.sites[1].size
    assert set(task.site_scores(1, task.initial_arrays(Seeds(0)))) == {"accuracy/1", "accuracy/2"}


def test_without_clients_or_sites_there_are_four(tmp_path: Path) -> None:
    task = stream(tmp_path, three(), clients=None, partition={"name": "pathological"})
    assert len(task.sites) == 4
    again, other = (stream(tmp_path, three(), seed=seed) for seed in (0, 1))
    first = stream(tmp_path, three(), seed=0)
    assert torch.equal(whole(first, 2, 1)[0], whole(again, 2, 1)[0])
    assert not torch.equal(whole(first, 2, 1)[0], whole(other, 2, 1)[0])


OUTPUTS: dict[str, tuple[list[set[int]], int]] = {
    "task-incremental": ([{0, 1, 2}, {3, 4}, {5, 6}], 7),
    "class-incremental": ([{0, 1, 2}, {3, 4}, {5, 6}], 7),
}


@pytest.mark.parametrize("protocol", OUTPUTS)
def test_tasks_of_unequal_numbers_of_classes(tmp_path: Path, protocol: str) -> None:
    """Classes 4, 5, 6 then 0, 1 then 2, 3: outputs go by task, not by class."""
    groups = ((4, 5, 6), (0, 1), (2, 3))
    files = {f"{t}-task{t}": arrays(t, groups[t]) for t in range(3)}
    task, (wanted, count) = stream(tmp_path, files, protocol=protocol), OUTPUTS[protocol]
    data = [whole(task, 0, number) for number in range(3)]
    assert [set(batch[1].tolist()) for batch in data] == wanted
    assert [task.seen_classes([number]).tolist() for number in range(3)] == [
        sorted(group) for group in wanted
    ]
    assert task.seen_classes([2, 0]).tolist() == [0, 1, 2, 5, 6]
    model = task.model()
    assert model(data[0][0]).shape[1] == count
    scores, free = task.scores(model, data[1]), task.all_scores(model, data[1])
    if protocol == "class-incremental":
        assert torch.equal(scores, free) and len(data[1]) == 2
        return
    assert bool((data[1][2] == 1).all())
    assert torch.equal(scores[:, 3:5], free[:, 3:5])
    assert bool((scores[:, [0, 1, 2, 5, 6]] == -1e4).all())


@pytest.mark.parametrize(("protocol", "outputs"), list(zip(PROTOCOLS, (3, 9, 9), strict=True)))
def test_tasks_that_share_their_classes(tmp_path: Path, protocol: str, outputs: int) -> None:
    task = stream(tmp_path, three(), protocol=protocol)
    first = 0 if outputs == 3 else 6
    assert set(whole(task, 0, 2)[1].tolist()) == {first, first + 1, first + 2}
    assert dict(task.model().named_parameters())["head.bias"].shape == (outputs,)
    values = task.evaluate(task.initial_arrays(Seeds(3)))
    assert set(values) == {"accuracy", "loss", "accuracy/0", "accuracy/1", "accuracy/2"}


def test_a_domain_may_lack_a_class(tmp_path: Path) -> None:
    files = three()
    files["01-summer"] = arrays(0, (0, 2))
    task = stream(tmp_path, files)
    assert set(whole(task, 0, 0)[1].tolist()) == {0, 2}
    assert task.seen_classes([0]).tolist() == [0, 1, 2]


def test_the_scale_is_that_of_rows_trained_on_first(tmp_path: Path) -> None:
    files = three()
    for content in files.values():
        content["train_x"][:, 1, 1] = 0.1
    files["02-autumn"]["train_x"][:, 1, 1] = np.arange(60)
    task = stream(tmp_path, files, scale="standardise", held_out=0.25)
    trained = np.concatenate(task.parts[0].train)
    flat = files["01-summer"]["train_x"].reshape(60, 6).astype(np.float64)
    mean, deviation = flat[trained].mean(0), flat[trained].std(0)
    # A feature that never varies is centred, not stretched.
    deviation[4] = 1.0
    for number, content in enumerate(files.values()):
        rows = task.parts[number].train[1]
        wanted = (content["train_x"].reshape(60, 6)[rows] - mean) / deviation
        np.testing.assert_allclose(whole(task, 1, number)[0].numpy(), wanted, rtol=1e-4, atol=1e-5)


def test_nothing_of_the_future_or_of_judged_rows_leaks(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"scale": "standardise", "held_out": 0.25, "rows": 10}
    before = stream(tmp_path, three(), **settings)
    trained = np.concatenate(before.parts[0].train)
    files = three()
    others = np.setdiff1d(np.arange(60), trained)
    assert len(others) == 30
    files["01-summer"]["train_x"][others] *= 50.0
    files["01-summer"]["test_x"] += 7.0
    for name in ("02-autumn", "10-first-snow"):
        files[name]["train_x"] = files[name]["train_x"] * -9.0
    after = stream(tmp_path, files, **settings)
    for site in range(3):
        assert torch.equal(whole(before, site, 0)[0], whole(after, site, 0)[0])
        assert not torch.equal(whole(before, site, 1)[0], whole(after, site, 1)[0])


@pytest.mark.parametrize("kind", ["uint8", "int8", "bool", ">f8", "int64", "float16"])
def test_numbers_of_all_kinds(tmp_path: Path, kind: str) -> None:
    files = three()
    for content in files.values():
        for part in ("train_x", "test_x"):
            content[part] = np.asfortranarray(np.abs(content[part]) % 100).astype(kind)
    task = stream(tmp_path, files)
    x = whole(task, 0, 1)[0]
    assert x.dtype == torch.float32
    wanted = files["02-autumn"]["train_x"].reshape(60, 6)[task.parts[1].train[0]]
    assert np.array_equal(x.numpy(), wanted.astype(np.float32))
    assert task.row_bytes == 6 * (1 if kind in ("uint8", "int8", "bool") else 4) + 1


def changed(key: str, change: Callable[[Any], Any]) -> Callable[[Files], None]:
    def apply(files: Files) -> None:
        files["02-autumn"][key] = change(files["02-autumn"][key])

    return apply


def at(key: str, place: Any, value: Any) -> Callable[[Files], None]:
    def apply(files: Files) -> None:
        files["02-autumn"][key][place] = value

    return apply


def sites(*values: Any, only: str = "") -> Callable[[Files], None]:
    def apply(files: Files) -> None:
        for name, content in files.items():
            if only in name:
                content["train_site"] = np.resize(values, 60)

    return apply


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: f["02-autumn"].pop("test_y"), "02-autumn.npz': array test_y is missing"),
        (lambda f: f["02-autumn"].clear(), "array train_x is missing .there are: none"),
        (
            lambda f: f["02-autumn"].update(train_sites=[0]),
            "unknown array 'train_sites' .did you mean 'train_site'",
        ),
        (changed("train_x", lambda x: x.astype(object)), "array train_x is made of Python objects"),
        (changed("train_x", lambda x: x.astype(str)), "train_x holds <U.*expected real numbers"),
        (changed("train_x", lambda x: x + 1j), "train_x holds complex64, expected real numbers"),
        (changed("train_x", lambda x: x[:, 0, 0]), r"train_x has shape \(60,\), .*reshape"),
        (changed("train_x", lambda x: x[0, 0, 0]), r"train_x has shape \(\), expected"),
        (changed("train_x", lambda x: x[:0]), r"train_x has shape \(0, 2, 3\), .*nothing to learn"),
        (changed("test_x", lambda x: x[:0]), r"test_x has shape \(0, 2, 3\)"),
        (changed("test_x", lambda x: x[:, :1]), r"test_x has shape \(1, 3\), but .* \(2, 3\)"),
        (at("train_x", (7, 1, 0), np.nan), "train_x row 7 holds nan .feature 3; 1 such rows"),
        (at("test_x", (0, 0, 1), -np.inf), "test_x row 0 holds -inf"),
        (changed("train_x", lambda x: x.astype(float) + 1e300), r"train_x row 0 holds 1e\+300"),
        (changed("train_y", lambda y: y.astype(float)), "train_y holds float64, .*whole numbers"),
        (changed("train_y", lambda y: y > 0), "train_y holds bool, expected whole numbers"),
        (changed("train_y", lambda y: y[:-1]), r"train_y has shape \(59,\), .* 60 rows of train_x"),
        (changed("test_y", lambda y: y[:, None]), r"test_y has shape \(30, 1\)"),
        (at("train_y", 5, -1), "train_y row 5 is -1, expected whole numbers from 0 on"),
        (at("train_y", 5, 9), "train_y goes up to 9, but class 3 has no rows .* 0 to 3, alike"),
        (at("train_y", 5, 2**40), "train_y holds 1099511627776"),
        (at("test_y", 5, 3), "test_y holds class 3, which is not among any task's train_y"),
        (sites(0, 1, only="02"), "01-summer.npz': array train_site is missing, but"),
        (sites(0, 1, only="01"), "02-autumn.npz': array train_site is missing, but"),
        (sites(0, 2), "train_site goes up to 2, but site 1 has no rows in any file"),
        (sites(0, -2), "train_site row 1 is -2"),
        (sites("a", "b"), "train_site holds <U1, expected whole numbers of sites"),
        (
            lambda f: f.update({"03-more": {k: v[:2] for k, v in f["01-summer"].items()}}),
            "03-more.npz': train_y: 3 clients cannot be made of 2 rows",
        ),
        (lambda f: f.update({"9-late": f["01-summer"]}), "pad the numbers with zeros"),
        (lambda f: f.update({"11-summer": f["01-summer"]}), "are both task 'summer'; rename"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, spoil: Any, words: str) -> None:
    files = three()
    for content in files.values():
        content["train_y"] = content["train_y"].astype(np.int64)
    spoil(files)
    with pytest.raises(DataError, match=words):
        stream(tmp_path, files)


def test_another_shape_than_in_the_first_file(tmp_path: Path) -> None:
    files = three()
    for part in ("train_x", "test_x"):
        files["02-autumn"][part] = files["02-autumn"][part].reshape(-1, 6)
    with pytest.raises(DataError, match=r"02-autumn.npz': .* \(6,\), but in '.*01-summer.npz' \(2"):
        stream(tmp_path, files)


def test_files_that_are_no_archives(tmp_path: Path) -> None:
    folder = Path(write(tmp_path, three()))
    spoilt = folder / "02-autumn.npz"
    good = spoilt.read_bytes()
    with spoilt.open("wb") as file:
        np.save(file, np.zeros((3, 3)))
    with pytest.raises(DataError, match=r"02-autumn.npz': is a single array, no .npz"):
        ArrayStream(str(folder))
    middle = len(good) // 2
    for content in (
        b"",
        b"no archive",
        good[:middle],
        good[:200] + bytes(200) + good[400:],
    ):
        spoilt.write_bytes(content)
        with pytest.raises(DataError, match=r"02-autumn.npz': .*cannot be read"):
            ArrayStream(str(folder))
    with zipfile.ZipFile(spoilt, "w") as archive:
        archive.writestr("train_x", "a text")
    with pytest.raises(DataError, match=r"02-autumn.npz'"):
        ArrayStream(str(folder))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"folder": None}, "task.folder names no folder of tasks; make a file"),
        ({"folder": "nowhere"}, "task.folder is 'nowhere', which does not exist; make a file"),
        ({"folder": __file__}, "which is a file"),
        ({"folder": str(Path(__file__).parent)}, "holds no .npz file; make a file"),
        ({"tasks": 4}, "task.tasks is 4, but '.*' holds 3 .npz files; set task.tasks=3"),
        ({"tasks": 0}, "task.tasks is 0"),
        ({"clients": 0}, "task.clients is 0"),
        ({"protocol": "domain"}, "did you mean 'domain-incremental'"),
        ({"partition": "dirichlit"}, "did you mean 'dirichlet'"),
        ({"held_out": 1.0}, "task.held_out is 1.0"),
        ({"rows": 0}, "task.rows is 0"),
        ({"test_rows": -5}, "task.test_rows is -5"),
        ({"scale": "standardize"}, "did you mean 'standardise'"),
        ({"hidden": [0]}, r"task.hidden\[0\] is 0"),
        ({"norm": "bach"}, "did you mean 'batch'"),
        ({"dropout": 1.0}, "task.dropout is 1.0"),
    ],
)
def test_settings_that_make_no_sense(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    folder = write(tmp_path, three())
    with pytest.raises(ConfigError, match=words):
        ArrayStream(**{"folder": folder, **settings})


@pytest.mark.parametrize(
    ("groups", "protocol", "words"),
    [
        (((0, 1), (2, 3)), "domain-incremental", "no two files share a class"),
        (((0, 1, 2), (2, 3)), "class-incremental", "class 2 is in train_y of '.*00.npz' and of"),
        (((0, 1), (1,)), "task-incremental", "a task of one class has nothing to tell apart"),
        (((0,), (0,)), "domain-incremental", "a task of one class has nothing to tell apart"),
    ],
)
def test_protocols_that_do_not_fit_the_classes(
    tmp_path: Path, groups: Any, protocol: str, words: str
) -> None:
    files = {f"0{task}": arrays(task, group) for task, group in enumerate(groups)}
    with pytest.raises(ConfigError, match=words):
        stream(tmp_path, files, protocol=protocol)


def test_a_class_tested_in_one_task_but_trained_in_another(tmp_path: Path) -> None:
    files = {f"0{task}": arrays(task, (2 * task, 2 * task + 1)) for task in range(2)}
    files["00"]["test_y"][3] = 2
    with pytest.raises(DataError, match=r"00.npz': test_y holds class 2, .* this task's train_y"):
        stream(tmp_path, files, protocol="class-incremental")


def test_rows_that_a_site_has_not(tmp_path: Path) -> None:
    task = stream(tmp_path, three())
    with pytest.raises(DataError, match=r"of task 1 .'autumn'., of which it has 18"):
        task.task_data(0, 1, np.array([18]))
    with pytest.raises(DataError, match="no task 3, only 0 to 2"):
        task.task_rows(0, 3)
