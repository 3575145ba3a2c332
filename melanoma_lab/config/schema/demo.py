"""The page on which a model can be tried."""

from __future__ import annotations

from dataclasses import dataclass

from melanoma_lab.core.errors import require


@dataclass
class Demo:
    """The page of ``demo``."""

    #: Address to listen at. Any other than this machine's own lets others in, without a password.
    host: str = "127.0.0.1"
    #: Its port; 0: any that is free.
    port: int = 8910
    #: Megabytes of the largest file that is taken.
    max_megabytes: int = 50
    #: Training images that are shown beside a picture; 0: none, and nothing is prepared for them.
    neighbours: int = 6

    def __post_init__(self) -> None:
        require(0 <= self.port < 2**16, "demo.port", "0 to 65535", self.port)
        require(
            1 <= self.max_megabytes <= 1000, "demo.max_megabytes", "1 to 1000", self.max_megabytes
        )
        require(0 <= self.neighbours <= 50, "demo.neighbours", "0 to 50", self.neighbours)
