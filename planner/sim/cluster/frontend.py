"""The frontend's metrics: counters and histograms of requests, as a serving frontend exports them."""

from __future__ import annotations

from planner.sim.cluster.job import Job
from planner.sim.cluster.weighted_histogram import WeightedHistogram
from planner.sim.evaluation.records import RequestRecord

TTFT_S = (
    0.01,
    0.025,
    0.05,
    0.1,
    0.15,
    0.25,
    0.5,
    0.75,
    1.0,
    1.5,
    2.0,
    3.0,
    5.0,
    7.5,
    10.0,
    20.0,
    40.0,
    80.0,
    160.0,
    480.0,
)
ITL_S = (0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.15, 0.2, 0.5, 1.0)
DURATION_S = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0, 128.0, 256.0, 512.0)
TOKENS = (32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0, 65536.0, 131072.0)


class Frontend:
    """Counts since the start; histograms in seconds and tokens."""

    __slots__ = (
        "cached_tokens",
        "completed",
        "duration",
        "gaps",
        "input_tokens",
        "output_tokens",
        "started",
        "ttft",
    )

    def __init__(self) -> None:
        self.started = 0
        self.completed = 0
        self.cached_tokens = 0.0
        """Prompt tokens found in a prefix cache."""
        self.ttft = WeightedHistogram(TTFT_S)
        self.gaps = WeightedHistogram(ITL_S)
        """Gaps between tokens in seconds, observed by the decode workers as tokens come."""
        self.duration = WeightedHistogram(DURATION_S)
        self.input_tokens = WeightedHistogram(TOKENS)
        self.output_tokens = WeightedHistogram(TOKENS)

    def arrived(self, job: Job) -> None:
        """Count a request that has arrived."""
        self.started += 1
        self.input_tokens.observe(job.isl)

    def finished(self, record: RequestRecord) -> None:
        """Count a request that has received its last token, and keep its record."""
        self.completed += 1
        self.duration.observe(record.finished_s - record.t_s)
        self.output_tokens.observe(record.osl)

    @property
    def output_tokens_total(self) -> float:
        """Tokens of finished requests."""
        return self.output_tokens.sum
