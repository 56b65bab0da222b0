"""Options of the checks, and the server that they are for: the one at --url, else one of this project."""

import pytest

from tests.conformance.speaker import Speaker


def pytest_addoption(parser):
    parser.addoption("--url", help="http://HOST:PORT of the server under test")
    parser.addoption("--grpc-url", help="HOST:PORT of its gRPC")
    parser.addoption("--model", help="name of a model that it serves")


@pytest.fixture(scope="session")
def addresses(request, tmp_path_factory):
    """(URL, HOST:PORT of gRPC, model)."""
    url = request.config.getoption("url", None)
    if url is not None:
        yield url, request.config.getoption("grpc_url"), request.config.getoption("model")
        return
    from tests.trainer.export.exported_runs import exported
    from tests.trainer.serving.server.running import running

    with running(("ranker", str(exported(tmp_path_factory.mktemp("conformance"))))) as server:
        yield server.url, server.grpc, "ranker"


@pytest.fixture(scope="session")
def speaker(addresses):
    return Speaker(addresses[0], addresses[2])


@pytest.fixture
def needs(speaker):
    """Skips a check of an extension that the server does not offer."""

    def check(extension):
        if not any(extension in offered for offered in speaker.extensions):
            pytest.skip(f"the server does not offer {extension}: {speaker.extensions}")

    return check
