"""A link in SimPy, for what is held against it."""

import simpy


class SharedLink:
    """What is copied at a time shares it evenly."""

    def __init__(self, env: simpy.Environment) -> None:
        self._env, self._left, self._begun = env, {}, env.event()
        env.process(self._work())

    def copied(self, seconds: float) -> simpy.Event:
        done = self._env.event()
        self._left[done] = seconds
        if not self._begun.triggered:
            self._begun.succeed()
        return done

    def _work(self):
        while True:
            since, sharing = self._env.now, list(self._left)
            waits = [self._env.timeout(min(self._left.values()) * len(sharing))] if sharing else []
            yield self._env.any_of([*waits, self._begun])
            if self._begun.processed:
                self._begun = self._env.event()
            for done in sharing:
                self._left[done] -= (self._env.now - since) / len(sharing)
                if self._left[done] <= 1e-12:
                    del self._left[done]
                    done.succeed()
