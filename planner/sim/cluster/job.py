"""A request inside the plant."""

from __future__ import annotations

from planner.domain.request import Request


class Job:
    """Times in seconds of the plant's clock; -1 where it has not happened yet."""

    __slots__ = (
        "admitted_s",
        "cached_tokens",
        "done_tokens",
        "finish_at",
        "first_s",
        "gaps_before",
        "hash_ids",
        "index",
        "isl",
        "last_token_s",
        "longest_gap_s",
        "osl",
        "preemptions",
        "prefill_end_s",
        "prefill_start_s",
        "prefilled_tokens",
        "seat",
        "t_s",
    )

    def __init__(self, index: int, request: Request) -> None:
        self.index = index
        self.t_s = request.t_s
        self.isl = request.isl
        self.osl = request.osl
        self.hash_ids = request.hash_ids
        self.prefill_start_s = -1.0
        self.prefill_end_s = -1.0
        self.admitted_s = -1.0
        self.first_s = -1.0
        self.done_tokens = 0
        self.cached_tokens = 0
        self.prefilled_tokens = 0
        """Prompt tokens computed by chunks that are done or running."""
        self.finish_at = 0.0
        self.preemptions = 0
        self.seat = -1
        """The ticket of its current admission to a decode batch; -1 outside a batch."""
        self.gaps_before = 0
        """Gaps that its worker had noted when it joined the batch."""
        self.longest_gap_s = 0.0
        """Longest gap between two of its tokens, as of its last departure from a batch."""
        self.last_token_s = -1.0
        """Since when it waits for another place in a batch; -1 where it does not."""
