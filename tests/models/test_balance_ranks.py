"""Every balance, and the load-balance penalty beside it: two ranks end where one process ends on the joined rows."""

import pytest
import torch
from torch.multiprocessing.spawn import start_processes

from configs.choices import available
from tests.fork_server import fork_server
from tests.models import balance_ranks

fork_server("tests.models.balance_ranks")
CASES = [("mmoe", balance) for balance in available("models.balance")]
CASES += [("ple", "pcgrad"), ("shared_bottom", "gradnorm"), ("moe", "cagrad")]


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory) -> list[dict]:
    folder = tmp_path_factory.mktemp("ranks")
    start_processes(balance_ranks.one_rank, (2, str(folder), CASES), nprocs=2, start_method="forkserver")
    return [torch.load(folder / f"rank_{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(case))
def test_two_ranks_are_one_process(two_ranks, case):
    first, second = (states[case] for states in two_ranks)
    alone = balance_ranks.train(*case, rank=0, world_size=1)
    assert first.keys() == alone.keys()
    for name, want in alone.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(
            first[name], want, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f"{name} {text}"
        )


def test_the_balances_do_differ(two_ranks):
    """Otherwise the test above could not fail for a balance that does nothing."""
    biases = {balance: two_ranks[0][top, balance]["top.mixture.first.bias"] for top, balance in CASES if top == "mmoe"}
    for name, bias in biases.items():
        for other, same in biases.items():
            assert name == other or not torch.allclose(bias, same, rtol=1e-4, atol=1e-6), (name, other)
