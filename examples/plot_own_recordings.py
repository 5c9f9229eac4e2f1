"""
Probe a folder of recordings
============================

Recordings often come as a folder with one subfolder per class, in several formats and
sample rates, and with a file or two that will not open. This example makes such a
folder and classifies it.
"""

# %%
# A folder as people have it
# --------------------------
# Plucked and blown notes in wav, flac and ogg at three sample rates, and one file
# that is no recording.

import tempfile
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import soundfile
from sklearn.metrics import ConfusionMatrixDisplay
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skaudioemb import LogMel, MLPProbe
from skaudioemb.datasets import make_notes

temporary = tempfile.TemporaryDirectory()
folder = Path(temporary.name)
formats = [("wav", 16000), ("flac", 44100), ("ogg", 22050)]
for number, (suffix, rate) in enumerate(formats):
    notes = make_notes(
        n_clips=24,
        pitches=range(60, 72),
        n_timbres=3,
        sample_rate=rate,
        random_state=number,
    )
    for i, (clip, timbre) in enumerate(zip(notes.data, notes.timbre, strict=True)):
        place = folder / f"instrument-{3 * number + timbre}"
        place.mkdir(exist_ok=True)
        soundfile.write(place / f"{i:02d}.{suffix}", clip, rate)
(folder / "instrument-0" / "broken.wav").write_text("this is no recording")

# %%
# Paths in, classes from the folders' names
# -----------------------------------------
# With ``on_error="nan"`` a file that cannot be read becomes a row of NaN, and one
# warning names them all.

paths = sorted(path for path in folder.rglob("*") if path.is_file())
labels = np.array([path.parent.name for path in paths])
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    embeddings = LogMel(on_error="nan").fit_transform(paths)
print(caught[0].message)

good = np.isfinite(embeddings).all(axis=1)
print(f"{good.sum()} of {len(paths)} files are embedded")
temporary.cleanup()

# %%
# The probe
# ---------
# Embeddings are plain matrices from here on.

probe = MLPProbe(hidden_units=64, batch_size=32, lr=1e-2, max_epochs=60, random_state=0)
predicted = cross_val_predict(
    make_pipeline(StandardScaler(), probe), embeddings[good], labels[good], cv=3
)
print(f"accuracy: {np.mean(predicted == labels[good]):.2f}")

display = ConfusionMatrixDisplay.from_predictions(
    labels[good], predicted, xticks_rotation="vertical", cmap="Blues", colorbar=False
)
display.figure_.set_layout_engine("constrained")
display.ax_.set_title("Which instrument?")
plt.show()
