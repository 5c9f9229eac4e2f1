"""Resampling by torchaudio: the same result for a clip wherever it comes from."""

import functools
import importlib.metadata
import math

import numpy as np

from skaudioemb.clips import check_rate

# torchaudio's documented equivalent of librosa's and resampy's "kaiser_best".
RESAMPLING = {
    "resampling_method": "sinc_interp_kaiser",
    "lowpass_filter_width": 64,
    "rolloff": 0.9475937167399596,
    "beta": 14.769656459379492,
}
CHUNK = 2**20  # samples resampled at a time, in or out, whichever are more
# torchaudio's kernel has (to / gcd) * (from / gcd + taps) elements, nearly all of them
# zero when the two rates share no large divisor (22254 Hz to 16000 Hz: 90 million).
MAX_KERNEL = 2**22


def import_torchaudio():
    """Import torchaudio, or say which pair of torch and torchaudio to install.

    Returns
    -------
    torchaudio : module

    Raises
    ------
    ImportError
        If torchaudio is missing or does not load beside the torch that is installed.
        Its last release, 2.11, is built for CUDA 13.0: it loads beside torch 2.11 to
        2.14 from PyPI, not beside torch 2.15 or a CPU-only torch.
    """
    try:
        import torchaudio
    except (ImportError, OSError) as error:
        found = {}
        for name in ("torch", "torchaudio"):
            try:
                found[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                found[name] = "not installed"
        raise ImportError(
            f"torchaudio cannot be imported ({error}). Found torch: {found['torch']}; "
            f"torchaudio: {found['torchaudio']}. Install both from PyPI with: "
            'pip install "torch>=2.11,<2.15" "torchaudio>=2.11,<2.12" '
            "(a CPU-only torch or torch 2.15 does not load torchaudio)."
        ) from error
    return torchaudio


def n_resampled(n_samples, from_rate, to_rate):
    """Count the samples that `resample` gives: ``ceil(n_samples * to / from)``.

    Parameters
    ----------
    n_samples : int
        Samples at `from_rate`.
    from_rate, to_rate : int
        Rates in Hz.

    Returns
    -------
    n_samples : int
        Samples at `to_rate`.

    Examples
    --------
    >>> from skaudioemb.audio import n_resampled
    >>> n_resampled(44101, 44100, 16000)
    16001
    """
    return -(-int(n_samples) * int(to_rate) // int(from_rate))


def resample(waveform, rate):
    """Bring a waveform to another rate.

    The filter is torchaudio's Kaiser-windowed sinc with 64 zero crossings to each side,
    roll-off 0.9476 and beta 14.77 (the equivalent of "kaiser_best" of resampy and
    librosa). It runs on the CPU in float32, one clip at a time and in chunks whose
    bounds depend on the rates alone, so the result never depends on other clips.

    Parameters
    ----------
    waveform : Waveform
        The clip.
    rate : int
        The rate to give it, in Hz.

    Returns
    -------
    samples : ndarray of shape (n_resampled(n_samples, waveform.rate, rate),)
        float32, contiguous; the waveform's own samples if the rates are equal.

    Raises
    ------
    AudioError
        If a rate is not a positive whole number.
    ImportError
        If torchaudio cannot be imported.

    References
    ----------
    J. O. Smith, "Digital Audio Resampling", section "Theory of Ideal Bandlimited
    Interpolation", https://ccrma.stanford.edu/~jos/resample/.

    Examples
    --------
    >>> import numpy as np
    >>> from skaudioemb.audio import Waveform, resample
    >>> resample(Waveform(np.zeros(44100, np.float32), 44100), 16000).shape
    (16000,)
    """
    to_rate = check_rate(rate, "rate")
    from_rate = check_rate(waveform.rate, "waveform.rate")
    if from_rate == to_rate:
        return np.ascontiguousarray(waveform.samples, dtype=np.float32)
    gcd = math.gcd(from_rate, to_rate)
    step, new = from_rate // gcd, to_rate // gcd
    width = _half_width(step, new)
    if new * (step + 2 * width) <= MAX_KERNEL:
        convolve = _kernel(step, new)
    else:
        convolve = functools.partial(_resample_by_phase, step=step, new=new)
    samples = np.ascontiguousarray(waveform.samples, dtype=np.float32)
    result = np.empty(n_resampled(len(samples), step, new), np.float32)
    context = -(-width // step)  # in steps, like everything below
    n_steps = max(1, CHUNK // max(step, new))
    for begin in range(0, -(-len(samples) // step), n_steps):
        before = min(begin, context)
        chunk = np.zeros((before + n_steps + context) * step, np.float32)
        piece = samples[(begin - before) * step :][: len(chunk)]
        # Whole steps, or torchaudio's own length would be a rounded float32.
        chunk = chunk[: -(-len(piece) // step) * step]
        chunk[: len(piece)] = piece
        target = result[begin * new :][: n_steps * new]
        target[:] = convolve(chunk)[before * new :][: len(target)]
    return result


def _half_width(step, new):
    cutoff = min(step, new) * RESAMPLING["rolloff"]
    return math.ceil(RESAMPLING["lowpass_filter_width"] * step / cutoff)


@functools.lru_cache(maxsize=32)
def _kernel(step, new):
    torchaudio = import_torchaudio()
    import torch

    filtered = torchaudio.transforms.Resample(step, new, **RESAMPLING)

    def convolve(chunk):
        with torch.inference_mode():
            return filtered(torch.from_numpy(chunk)).numpy()

    return convolve


@functools.lru_cache(maxsize=2)
def _phase_table(step, new):
    """Give every one of the `new` phases its own taps, and only those not zero."""
    width, beta = RESAMPLING["lowpass_filter_width"], RESAMPLING["beta"]
    cutoff = min(step, new) * RESAMPLING["rolloff"] / step
    taps = np.arange(-_half_width(step, new), _half_width(step, new) + 2)
    offsets = np.arange(new) * step % new / new
    table = np.empty((new, len(taps)), np.float32)
    n_rows = max(1, CHUNK // len(taps))
    for begin in range(0, new, n_rows):
        rows = slice(begin, begin + n_rows)
        times = (taps - offsets[rows, None]) * cutoff
        window = np.i0(beta * np.sqrt(np.maximum(0, 1 - (times / width) ** 2)))
        window[np.abs(times) > width] = 0
        table[rows] = cutoff * np.sinc(times) * window / np.i0(beta)
    return table


def _resample_by_phase(chunk, step, new):
    table = _phase_table(step, new)
    margin = _half_width(step, new)
    padded = np.pad(chunk, (margin, margin + 2))
    windows = np.lib.stride_tricks.sliding_window_view(padded, table.shape[1])
    result = np.empty(len(chunk) // step * new, np.float32)
    n_outputs = max(1, CHUNK // table.shape[1])
    for begin in range(0, len(result), n_outputs):
        outputs = np.arange(begin, min(begin + n_outputs, len(result)))
        taps = windows[outputs * step // new]
        result[outputs] = np.einsum("ot,ot->o", taps, table[outputs % new])
    return result
