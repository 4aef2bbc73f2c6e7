"""The five tabular sets of the density-estimation literature: what is known of them without their data.

Rows and columns as Papamakarios et al. 2017 made them. `sparseflows data prepare` makes them again.
"""

from dataclasses import dataclass

ARCHIVE_URL = "https://zenodo.org/records/1161203"
PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Benchmark:
    """One of the five sets.

    Attributes:
        name: as param files call it.
        description: one line.
        columns: D.
        rows: of the train, validation and test part, as published.
        raw: the public raw file or files that it can be made from; empty where only the archive has it.
        archived: its files in the ready-made archive, below its root.
        url: where the raw files are.
        licence: of the data.
    """

    name: str
    description: str
    columns: int
    rows: tuple[int, int, int]
    raw: tuple[str, ...]
    archived: tuple[str, ...]
    url: str
    licence: str = "CC BY 4.0"

    @property
    def title(self) -> str:
        """The name in tables."""
        return self.name.upper()


BENCHMARKS: dict[str, Benchmark] = {
    one.name: one
    for one in (
        Benchmark(
            "power",
            "electric power of one household, by the minute",
            6,
            (1_659_917, 184_435, 204_928),
            ("household_power_consumption.txt",),
            ("power/data.npy",),
            "https://archive.ics.uci.edu/dataset/235/individual+household+electric+power+consumption",
        ),
        Benchmark(
            "gas",
            "16 gas sensors under ethylene and CO",
            8,
            (852_174, 94_685, 105_206),
            ("ethylene_CO.txt",),
            ("gas/ethylene_CO.pickle",),
            "https://archive.ics.uci.edu/dataset/322/gas+sensor+array+under+dynamic+gas+mixtures",
        ),
        Benchmark(
            "hepmass",
            "simulated collisions with a particle of 1000 GeV",
            21,
            (315_123, 35_013, 174_987),
            ("1000_train.csv", "1000_test.csv"),
            ("hepmass/1000_train.csv", "hepmass/1000_test.csv"),
            "https://archive.ics.uci.edu/dataset/347/hepmass",
        ),
        Benchmark(
            "miniboone",
            "electron neutrinos of the MiniBooNE experiment",
            43,
            (29_556, 3_284, 3_648),
            ("MiniBooNE_PID.txt",),
            ("miniboone/data.npy",),
            "https://archive.ics.uci.edu/dataset/199/miniboone+particle+identification",
        ),
        Benchmark(
            "bsds300",
            "8 × 8 patches of natural images, less one pixel",
            63,
            (1_000_000, 50_000, 250_000),
            (),
            ("BSDS300/BSDS300.hdf5",),
            "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/bsds/",
            "for non-commercial research and education",
        ),
    )
}
