"""The API against its own description: whatever is asked, no internal error."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from meddift.viewer.app import make_app
from meddift.viewer.session import Session

USUAL = settings(
    max_examples=15, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


@pytest.mark.filterwarnings("ignore")  # of the libraries that draw requests
def test_no_request_ends_in_an_internal_error(session: Session) -> None:
    import schemathesis

    session.jobs.close()  # nothing is computed: this is about requests
    app = make_app(session)
    schema = schemathesis.openapi.from_asgi("/api/v1/openapi.json", app)
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) > 20
    for operation in operations:
        if operation.path == "/api/v1/events":
            continue  # never ends

        @USUAL
        @given(case=operation.as_strategy())
        def ask(case: Any) -> None:
            answer = case.call()
            assert answer.status_code < 500, (case.method, case.path, answer.text)

        ask()
    app.state.work.close()
