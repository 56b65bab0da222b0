"""Whether the machines are alike, and large enough: processors, memory, space, open files."""

from collections.abc import Iterator

from cluster.doctor.findings import Finding, differing, named, spread
from cluster.doctor.versions import Facts
from configs.doctor_config import DoctorConfig


def check_processors(facts: Facts) -> Iterator[Finding]:
    """Other instructions give other last bits, and other speeds."""
    shown = {
        node: f"{one['processor']['model']} ({' '.join(one['processor']['features']) or 'no vector instructions'})"
        for node, one in facts.items()
    }
    if said := differing(shown):
        remedy = "use machines of one kind if a resumed run must end bit for bit; steps take as long as on the slowest"
        yield Finding("processors", "warning", said, remedy)
    else:
        cores = sorted({one["processor"]["cores"] for one in facts.values()})
        yield Finding("processors", "ok", f"{next(iter(shown.values()))}, {spread(cores)} cores a node")


def check_memory(facts: Facts, settings: DoctorConfig) -> Iterator[Finding]:
    """Memory, /dev/shm, and space for what Ray writes."""
    shared = {node: one["shared_memory_gib"] or 0 for node, one in facts.items()}
    if few := [node for node, gib in shared.items() if gib < settings.min_shared_memory_gib]:
        said = f"/dev/shm has {shared[few[0]]:g} GiB on {named(few)}, wanted are {settings.min_shared_memory_gib:g}"
        yield Finding("memory", "warning", said, "give containers more: --shm-size, or an emptyDir with medium: Memory")
    free = {node: one["temporary"]["free_gib"] or 0 for node, one in facts.items()}
    if few := [node for node, gib in free.items() if gib < settings.min_free_gib]:
        path = facts[few[0]]["temporary"]["path"]
        said = f"{free[few[0]]:g} GiB are free for Ray's files ({path}) on {named(few)}"
        yield Finding("memory", "warning", said, "make room, or start Ray with --temp-dir elsewhere")
    memory = sorted(one["memory_gib"] for one in facts.values())
    yield Finding("memory", "ok", f"{spread(memory)} GiB a node, {spread(sorted(shared.values()))} GiB of /dev/shm")


def check_open_files(facts: Facts, settings: DoctorConfig) -> Iterator[Finding]:
    limits = {node: one["open_files"] for node, one in facts.items()}
    if few := [node for node, limit in limits.items() if limit < settings.min_open_files]:
        said = f"a process may open {limits[few[0]]:,} files on {named(few)}, wanted are {settings.min_open_files:,}"
        yield Finding("open files", "warning", said, "ulimit -n, or LimitNOFILE, before `ray start`")
    else:
        yield Finding("open files", "ok", f"{min(limits.values()):,} or more a process")
