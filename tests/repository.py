"""Where the tests find the repository, and what lies beside it where there is a shared folder."""

from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
SHARED = REPOSITORY.parent / "shared"
