"""The description of one data set. Imports no torch."""

from dataclasses import dataclass

SIDE = 32  # pixels of a prepared image's side, unless the name of its data set asks for fewer


@dataclass(frozen=True)
class Dataset:
    """One data set. Mean and standard deviation are of pixels scaled to [0, 1], one for each channel.

    A derived one has its base's files and constants, whichever classes it keeps and however small its images are.
    Those of grey images are the luminance-weighted sums over the base's channels: for the mean that is exact, for the
    standard deviation an upper bound, reached where the channels are wholly correlated (in photographs nearly so).
    """

    name: str
    classes: int
    channels: int  # 0: vectors, not images
    side: int  # pixels of a raw image's side; the dimensions of a vector
    train_per_class: tuple[int, ...]  # examples of each class
    test_per_class: tuple[int, ...]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    files: tuple[str, ...] = ()  # raw files; those of MNIST's format may end in .gz
    digests: tuple[str, ...] = ()  # SHA-256 of the published content of each file, where they are no pickles
    download_host: str | None = None
    download_scheme: str = "https"
    embedded: bool = False  # needs neither files nor network
    derived_from: str | None = None  # name of the base, None for a data set of its own
    kept_classes: tuple[int, ...] = ()  # of the base, in the order of the new labels 0, 1, ...; empty: all, unchanged
    grey: bool = False  # luminance in place of red, green and blue
    reduced_side: int | None = None  # the side that the name asks for

    @property
    def base(self) -> str:
        """The data set whose files these are; the own name where nothing is derived."""
        return self.derived_from or self.name

    @property
    def prepared_side(self) -> int | None:
        """Pixels of a prepared image's side: 32 unless the name asks for fewer; None for vectors."""
        return (self.reduced_side or SIDE) if self.channels else None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one prepared example: (channels, side, side), or (dimensions,) of a vector."""
        side = self.prepared_side
        return (self.side,) if side is None else (self.channels, side, side)

    @property
    def download_url(self) -> str:
        """Scheme and host of the server that torchvision downloads from."""
        return f"{self.download_scheme}://{self.download_host}"
