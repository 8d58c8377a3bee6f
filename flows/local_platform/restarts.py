"""When a service that ended is started again: soon at first, later and later, and not for ever."""

from dataclasses import dataclass, field

FIRST_SECONDS = 1.0
LONGEST_SECONDS = 60.0


@dataclass
class Restarts:
    """The failures of one service within a span of time.

    Attributes:
        allowed: failures within `span` after which it is still started again.
        span: seconds for which a failure counts.
    """

    allowed: int = 5
    span: float = 900.0
    total: int = 0
    _times: list[float] = field(default_factory=list)

    def delay_after(self, now: float) -> float | None:
        """Note a failure at this time (seconds, of any clock that only goes forward).

        Returns:
            seconds to wait before the next start, doubled with each failure that counts; None: give up.
        """
        self._times = [time for time in self._times if now - time < self.span] + [now]
        if len(self._times) > self.allowed:
            return None
        self.total += 1
        return min(LONGEST_SECONDS, FIRST_SECONDS * 2.0 ** (len(self._times) - 1))
