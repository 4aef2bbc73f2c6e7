"""Files of the published formats, from seeded random numbers."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile

import numpy as np

HEADER = (
    "Date;Time;Global_active_power;Global_reactive_power;Voltage;Global_intensity;"
    "Sub_metering_1;Sub_metering_2;Sub_metering_3"
)


def power_rows(n=1500, seed=0):
    """As the archive has them (n, 8): minutes in order, values as coarse as the meter's."""
    rng = np.random.default_rng(seed)
    return np.column_stack(
        (
            rng.gamma(2, 0.6, n).round(3),
            rng.uniform(0, 0.5, n).round(3),
            rng.normal(240, 3, n).round(2),
            rng.gamma(2, 3, n).round(1),
            rng.integers(0, 40, (n, 3)),
            np.arange(n) % 1440,
        )
    )


def power_text(rows, missing=(), end="\n"):
    """The raw text; after each row of `missing` there is one without values."""
    lines = [HEADER]
    for k, row in enumerate(rows):
        minute = int(row[7])
        clock = f"{minute // 60:02d}:{minute % 60:02d}:00"
        cells = [f"{row[0]:.3f}", f"{row[1]:.3f}", f"{row[2]:.3f}", f"{row[3]:.3f}", *(f"{x:.3f}" for x in row[4:7])]
        lines.append(f"1/2/2007;{clock};{';'.join(cells)}")
        if k in missing:
            lines.append(f"28/4/2007;{clock};?;?;?;?;?;?;" if k % 2 else f"28/4/2007;{clock};1.0;;240;4;0;0;1")
    return end.join(lines) + end


def gas_rows(n=4000, seed=1):
    """(n, 19): time, two concentrations, sixteen sensors of which some follow others, one of them upside down."""
    rng = np.random.default_rng(seed)
    sensors = rng.normal(size=(n, 16)) @ rng.normal(size=(16, 16)) * 50 + 1000
    for follower, leader, sign in ((1, 0, 1), (2, 1, 1), (9, 4, 1), (4, 12, 1), (15, 3, -1)):
        sensors[:, follower] = sign * sensors[:, leader] + rng.normal(size=n) * 9
    return np.column_stack((np.arange(n) / 100, rng.integers(0, 500, (n, 2)), sensors.round(2)))


def gas_text(rows):
    head = "Time (seconds), CO conc (ppm), Ethylene conc (ppm), sensor readings (16 channels)\n"
    return head + "".join("   ".join(f"{x:.2f}" for x in row) + "  \n" for row in rows)


def gas_names():
    return ["Time", "Meth", "Eth", *(f"CO.{k}" for k in range(16))]


def hepmass_rows(n, seed, width=28):
    """(n, width): label and features; 3 spiked at their smallest value, 7 in the middle, 11 in the background only."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, width)).astype(np.float32).astype(np.float64)
    rows[:, 0] = rng.integers(0, 2, n)
    signal, background = np.flatnonzero(rows[:, 0] == 1), np.flatnonzero(rows[:, 0] == 0)
    rows[signal[::4], 3], rows[signal[::4], 7], rows[background[::4], 11] = -9, 0, -9
    rows[signal[[2, 30, 50, 70, 90]], 13] = -8  # five times are allowed
    rows[signal[[2, 30, 50, 70, 90, 110]], 14] = -8  # six are not
    return rows


def hepmass_text(rows, extra=""):
    head = '"# label",' + ",".join(f'"f{k}"' for k in range(27)) + extra + "\n"
    return head + "".join(",".join(f"{x:.18e}" for x in row) + "\n" for row in rows)


def miniboone_rows(signal=500, background=300, seed=2):
    """(signal + background, 50), with outliers of −999, and seven spiked columns."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(signal + background, 50)).round(5) + np.arange(50)
    for k in range(7):
        rows[::9, 5 * k + 3] = -50 - k
    rows[[4, 77, signal - 1, signal + 5]] = -999
    return rows


def miniboone_text(rows, signal):
    head = f" {signal}  {len(rows) - signal}\n"
    return head + "".join("  " + "  ".join(f"{x: .6e}" for x in row) + "\n" for row in rows)


def patches(sizes=(300, 40, 90), seed=3):
    rng = np.random.default_rng(seed)
    return {part: rng.normal(size=(n, 63)) for part, n in zip(("train", "validation", "test"), sizes, strict=True)}


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def write_tar(path, members):
    """`members`: name → bytes, or a TarInfo that is added as it is."""
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
        for name, content in members:
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def write_zip(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def write_gz(path, content):
    path.write_bytes(gzip.compress(content, 1))
    return path


def hdf5(path, arrays):
    import h5py

    with h5py.File(path, "w") as file:
        for part, array in arrays.items():
            file[part] = array
    return path


# --- a frame as pandas 0.19 pickled it: other modules, blocks in a tuple with its version


class OldManager:
    def __init__(self, values, names):
        axes = [OldIndex(np.array(names, dtype=object)), OldNumbers(np.arange(len(values)))]
        block = {"values": values.T, "mgr_locs": slice(0, len(names), 1)}
        self.state = (axes, [values.T], [axes[0]], {"0.14.1": {"axes": axes, "blocks": [block]}})

    def __getstate__(self):
        return self.state


class OldFrame:
    def __init__(self, values, names):
        self.__dict__.update(_metadata=[], _typ="dataframe", _data=OldManager(values, names))


class OldIndex:
    def __init__(self, data):
        self.data = data

    def __reduce__(self):
        return old_new, (type(self), {"data": self.data, "name": None})


class OldNumbers(OldIndex):
    pass


def old_new(kind, state):
    raise NotImplementedError


def old_pickle(values, names):
    import pickle

    data = pickle.dumps(OldFrame(values, names), protocol=2)
    for ours, theirs in (
        ("OldManager", "pandas.core.internals\nBlockManager"),
        ("OldFrame", "pandas.core.frame\nDataFrame"),
        ("OldIndex", "pandas.indexes.base\nIndex"),
        ("OldNumbers", "pandas.indexes.numeric\nInt64Index"),
        ("old_new", "pandas.indexes.base\n_new_Index"),
    ):
        data = data.replace(f"c{__name__}\n{ours}\n".encode(), f"c{theirs}\n".encode())
    return data.replace(b"cnumpy._core.", b"cnumpy.core.")
