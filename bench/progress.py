"""Which of many runs is on, and how long the rest will take."""
import statistics


def time_left(done, left, group):
    """Seconds for what is left: each as long as those of its group took, or any. done: [(item, seconds)]; None: unknown."""
    if not done:
        return None
    seconds = {}
    for item, s in done:
        seconds.setdefault(group(item), []).append(s)
    mean = statistics.mean(s for _, s in done)
    return sum(statistics.mean(seconds.get(group(item), [mean])) for item in left)


def clock(seconds):
    """", about 1:02:03 left", or nothing"""
    if seconds is None:
        return ""
    minutes, s = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f", about {f'{hours}:{minutes:02d}' if hours else minutes}:{s:02d} left"
