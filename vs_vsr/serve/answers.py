"""What the server answers: JSON, or a sentence with a status."""

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

__all__ = ["Refusal", "as_json", "given", "json_answer", "refused"]

# Of the JSON in a request; files come another way.
_MOST_BYTES = 64 * 1024


class Refusal(Exception):
    """A request that is not done, and why."""

    def __init__(self, status: int, sentence: str, **more: object) -> None:
        """Take the sentence for the user.

        Args:
            status: Of HTTP.
            sentence: What is wrong, and what to do now.
            more: What else the script in the page needs.
        """
        super().__init__(sentence)
        self.status, self.more = status, more


def as_json(data: object) -> str:
    """Text in ASCII alone, on one line: no character of a name can end it, or a server's event."""
    return json.dumps(data, allow_nan=False)


def json_answer(data: object, status: int = 200) -> Response:
    """Data as an answer."""
    return Response(as_json(data), status, media_type="application/json")


async def refused(request: Request, error: Exception) -> Response:
    """The answer to a request that was refused, or that the disk did not let be done."""
    if isinstance(error, Refusal):
        return json_answer({"problem": str(error), **error.more}, error.status)
    assert isinstance(error, OSError)
    what = error.filename or "A file"
    sentence = f"{what} could not be read or written ({error.strerror}). Make room there or mend it"
    return json_answer({"problem": f"{sentence}, and try again."}, 507)


async def given(request: Request) -> dict[str, Any]:
    """The JSON object in a request; an empty one if there is none.

    Raises:
        Refusal: It is too long, or no object.
    """
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > _MOST_BYTES:
            raise Refusal(
                413,
                f"The request must have at most {_MOST_BYTES} bytes, got more. Send a file as an "
                "upload.",
            )
    try:
        data = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise Refusal(400, "The request must be a JSON object, got something else. Send {}.")
    return data
