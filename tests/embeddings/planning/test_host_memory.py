import pytest

from embeddings.planning.host_memory import _container


def cgroup(folder, used, limit, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in zip(files, (used, limit, "anon 1\ninactive_file 30\ntotal_inactive_file 30"), strict=True):
        (folder / name).write_text(f"{text}\n", encoding="ascii")


@pytest.mark.parametrize(
    ("line", "top", "files"),
    [
        ("0::/job/step", "", ("memory.current", "memory.max", "memory.stat")),
        ("4:memory:/job/step", "memory", ("memory.usage_in_bytes", "memory.limit_in_bytes", "memory.stat")),
    ],
)
def test_the_nearest_limited_container_counts_without_its_page_cache(tmp_path, line, top, files):
    mine, root = tmp_path / "mine", tmp_path / "cgroup"
    mine.write_text(f"1:cpu:/job\n{line}\n", encoding="ascii")
    unlimited = "max" if top == "" else str(2**63 - 4096)
    cgroup(root / top, 900, unlimited, files)
    assert _container(root, mine) is None
    cgroup(root / top / "job", 500, 1000, files)
    cgroup(root / top / "job/step", 100, unlimited, files)
    assert _container(root, mine) == (470, 1000)
    cgroup(root / top / "job/step", 100, 200, files)
    assert _container(root, mine) == (70, 200)


def test_a_container_that_sees_its_cgroup_as_the_root(tmp_path):
    mine, root = tmp_path / "mine", tmp_path / "cgroup"
    mine.write_text("0::/outside/of/view\n", encoding="ascii")
    cgroup(root, 100, 200, ("memory.current", "memory.max", "memory.stat"))
    assert _container(root, mine) == (70, 200)
