import torch

from trainer.telemetry.memory import Memory, measure


def test_memory_is_measured():
    before = measure()
    held = torch.ones(64 * 2**20 // 4)
    after = measure()
    assert after.rss - before.rss > 0.05, f"{held.numel() * 4} bytes more are resident"
    assert 0 < after.rss < after.host_limit
    assert (after.used, after.limit) == (after.host, after.host_limit)
    assert (Memory(1, 2, 3, 4, 5).used, Memory(1, 2, 3, 4, 5).limit) == (4, 5)
