"""Draws people, so that demos, tests and benchmarks need nobody's photograph.

A person is a number; even ones are women, odd ones men. Every number has looks of its own (skin, head, eyes, brows,
nose, mouth, hair, beard, glasses, clothes, and a face bent like no other); every shot of a person varies light, noise,
framing, background and expression a little, as a camera does.

Measured with the real recognizer, 4 shots of each: shots of one of the first 36 people are 0.22 to 0.57 apart (usually
0.37: the same person, and no copy), and two of these people at least 1.01 (usually 1.24: no match). Of further people
the same holds mostly: one pair in twelve comes nearer than 1.0, and one shot in 180 is nearer to another person.

Needs numpy and pillow: ``pip install 'face_async[server]'``.
"""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt
from attrs import frozen
from PIL import Image, ImageDraw, ImageFilter

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_Color: TypeAlias = tuple[int, int, int]
_Points: TypeAlias = npt.NDArray[np.float64]

_SKINS = ((255, 228, 208), (246, 206, 174), (232, 182, 142), (208, 152, 108), (170, 116, 80), (128, 84, 60))
_HAIRS = ((30, 26, 28), (66, 44, 34), (112, 70, 40), (132, 56, 36), (178, 98, 48), (216, 174, 106), (186, 182, 178))
_IRISES = ((70, 46, 32), (56, 96, 138), (72, 112, 74), (108, 120, 128))
_CLOTHES = ((58, 86, 130), (158, 66, 68), (70, 116, 96), (226, 204, 156), (96, 80, 126), (62, 64, 74), (224, 136, 88))
_WALLS = ((208, 222, 234), (234, 222, 204), (210, 228, 212), (230, 212, 222), (220, 220, 226), (238, 232, 200))
_PRIMES = (97, 7, 103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 2, 3, 5, 101, 11, 13, 17, 19, 23,
            29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89)  # fmt: skip
_BENDS = 7  # cells each way, whose corners move when a face is bent
_BENT, _ASKEW, _MOVED = 0.018, 0.0055, 0.006  # how far: of a person on both sides alike, on each, and of a shot
_SHADES, _SHADED = 18, 0.09  # cells each way of lighter and darker skin, and how much lighter
# The first women and men are chosen: measured with the real recognizer, no two of them come as near as a match. The
# numbers of all others begin where no number was tried.
_SEEDS = (
    (202, 308, 50, 4, 692, 36, 934, 582, 800, 982, 938, 762, 184, 596, 754, 850, 366, 742),
    (409, 703, 545, 677, 385, 795, 157, 539, 401, 881, 993, 759, 311, 473, 655, 335, 775, 525),
)
_OTHERS = 500
_SMALLEST = 100  # pixels; the least that the service asks of a face
_DARK = (24, 16, 16)
_WHITE = (252, 250, 246)


def draw_portrait(person: int, *, shot: int = 0, size: int = 320) -> bytes:
    """Return a JPEG picture of a drawn person; the same arguments always give the same picture.

    Args:
        person: Who: any whole number from 0, women even and men odd; each has looks of its own.
        shot: Which picture of the person: any whole number from 0; each differs a little.
        size: Width and height in pixels, at least 100, the smallest face that the service's advice allows.
    """
    if person < 0 or shot < 0:
        raise ValueError(f"person and shot count from 0, not {person} and {shot}")
    if size < _SMALLEST:
        raise ValueError(f"size must be at least {_SMALLEST} pixels, not {size}")
    return _draw(_seed(person), shot, size)


def _draw(seed: int, shot: int, size: int) -> bytes:
    looks = _looks(seed)
    sheet = _Sheet(2 * size, looks.wall, _framing(seed, shot))
    _draw_behind(sheet, looks)
    _draw_head(sheet, looks)
    _draw_eyes(sheet, looks)
    _draw_nose(sheet, looks)
    _draw_mouth(sheet, looks)
    _draw_hair(sheet, looks)
    _draw_glasses(sheet, looks)
    shaded = _shade(sheet.image.resize((size, size), Image.Resampling.BOX), np.random.default_rng((seed,)))
    return _expose(_bend(shaded, seed, shot), np.random.default_rng((seed, shot)))


def _seed(person: int) -> int:
    """Return the number that a person's looks come from, of the same gender."""
    turn, gender = divmod(person, 2)
    chosen = _SEEDS[gender]
    return chosen[turn] if turn < len(chosen) else 2 * (_OTHERS + turn) + gender


@frozen
class _Looks:
    """What makes a person; lengths are in widths of the picture."""

    skin: _Color
    hair: _Color
    iris: _Color
    cloth: _Color
    wall: _Color
    head_width: float
    head_height: float
    jaw: float
    chin: float
    eye_apart: float
    eye_height: float
    eye_width: float
    eye_open: float
    eye_tilt: float
    socket: float
    brow_rise: float
    brow_thick: float
    brow_bend: float
    brow_tilt: float
    nose_length: float
    nose_width: float
    mouth_drop: float
    mouth_width: float
    lips: float
    smile: float
    rouge: float
    hairline: float
    hair_sides: float
    long_hair: bool
    parting: float
    volume: float
    curls: float
    moustache: float
    beard: float
    glasses: float

    @property
    def mouth_height(self) -> float:
        """Where the lips meet, below the middle of the face."""
        return min(self.eye_height + self.nose_length + self.mouth_drop, self.head_height - 0.08)


def _looks(seed: int) -> _Looks:
    places: Iterator[float] = iter(_spread(seed, len(_PRIMES)).tolist())

    def between(low: float, high: float) -> float:
        return low + (high - low) * next(places)

    def one_of(colors: Sequence[_Color]) -> _Color:
        at = between(0, len(colors) - 1)
        return _blend(colors[int(at)], colors[int(at) + 1], at % 1.0)

    skin = one_of(_SKINS)
    is_man = seed % 2 == 1
    return _Looks(
        skin=skin,
        hair=_blend(one_of(_HAIRS), _DARK, 0.7 * (1 - skin[1] / 255)),
        iris=one_of(_IRISES),
        cloth=one_of(_CLOTHES),
        wall=one_of(_WALLS),
        head_width=between(0.185, 0.235),
        head_height=between(0.25, 0.295),
        jaw=between(0.02, 0.24),
        chin=between(0.8, 1.0),
        eye_apart=between(0.078, 0.105),
        eye_height=between(-0.035, 0.015),
        eye_width=between(0.034, 0.052),
        eye_open=between(0.016, 0.027),
        eye_tilt=between(-0.16, 0.16),
        socket=between(0.3, 0.65),
        brow_rise=between(0.045, 0.07),
        brow_thick=between(0.004, 0.014),
        brow_bend=between(-0.004, 0.022),
        brow_tilt=between(-0.12, 0.2),
        nose_length=between(0.085, 0.115),
        nose_width=between(0.026, 0.052),
        mouth_drop=between(0.046, 0.072),
        mouth_width=between(0.05, 0.09),
        lips=between(0.008, 0.022),
        smile=between(-0.002, 0.022),
        rouge=between(0.0, 0.3) if is_man else between(0.4, 1.0),
        hairline=between(0.5, 0.95),
        hair_sides=between(0.0, 1.0),
        long_hair=between(-1, 3) > 0 and not is_man,
        parting=between(-1, 1),
        volume=between(0.02, 0.065),
        curls=between(-1, 1),
        moustache=between(-1.2, 1) if is_man else 0.0,
        beard=between(-1.5, 1) if is_man else 0.0,
        glasses=between(-2, 1),
    )


def _framing(seed: int, shot: int) -> _Points:
    """Where a shot lies among all framings, as four numbers of -1 to 1: shift (2), turn, zoom."""
    start = np.random.default_rng(seed).random(4)
    return 2 * ((start + _spread(shot, 4)) % 1.0) - 1


def _spread(number: int, dimensions: int) -> _Points:
    """Return a place in the unit cube, far from that of any other small number.

    Irrational steps (a Kronecker sequence) spread places far more evenly than chance does: how near two of them are
    depends on the difference of their numbers alone, so there is no unlucky pair that nearly coincides.
    """
    steps: _Points = np.sqrt(_PRIMES[:dimensions])
    return (0.5 + number * steps) % 1.0


class _Sheet:
    """Paper whose origin is the middle of the face and whose unit is the width of the picture."""

    def __init__(self, pixels: int, paper: _Color, framing: _Points) -> None:
        turn, zoom = 0.014 * float(framing[2]), pixels * (1 + 0.014 * float(framing[3]))
        self.image = Image.new("RGB", (pixels, pixels), paper)
        self._axes = zoom * np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
        self._origin = pixels * (np.array([0.5, 0.49]) + 0.008 * framing[:2])
        self._zoom = zoom

    def paint(self, outline: _Points, color: _Color, *, opacity: float = 1.0, softness: float = 0.0) -> None:
        """Fill a closed outline; ``softness`` is the width of its blurred edge."""
        points = outline @ self._axes + self._origin
        blur = softness * self._zoom
        edge = 2 + int(3 * blur)
        corner = np.clip(points.min(axis=0).astype(int) - edge, 0, self.image.size)
        opposite = np.clip(points.max(axis=0).astype(int) + edge, 0, self.image.size)
        left, top, width, height = (int(number) for number in (*corner, *(opposite - corner)))
        if width == 0 or height == 0:
            return
        mask = Image.new("L", (width, height))
        ImageDraw.Draw(mask).polygon([(x, y) for x, y in (points - corner).tolist()], fill=round(255 * opacity))
        if blur:
            mask = mask.filter(ImageFilter.GaussianBlur(blur))
        self.image.paste(color, (left, top), mask)


_ROUND = np.linspace(0, 2 * np.pi, 64, endpoint=False)
_ALONG = np.linspace(-1, 1, 16)


def _oval(x: float, y: float, width: float, height: float, *, taper: float = 0.0, square: float = 1.0) -> _Points:
    """An oval of these half axes; ``taper`` narrows its lower half, ``square`` below 1 makes it boxy."""
    outline = _oval_points(_ROUND, width, height, square=square)
    outline[:, 0] *= 1 - taper * np.maximum(outline[:, 1] / height, -0.3)
    outline += (x, y)
    return outline


def _oval_points(turn: _Points, width: float, height: float, *, square: float) -> _Points:
    across, down = (np.sign(wave) * np.abs(wave) ** square for wave in (np.cos(turn), np.sin(turn)))
    points: _Points = np.column_stack([width * across, height * down])
    return points


def _stroke(x: float, y: float, width: float, thickness: float, *, bend: float = 0.0, tilt: float = 0.0) -> _Points:
    """A brush stroke of this half width, thinner at its ends, which lie ``bend`` lower than its middle."""
    middle = y + bend * _ALONG**2 + tilt * width * _ALONG
    brush = thickness * (1 - 0.75 * _ALONG**2)
    upper, lower = (np.column_stack([x + width * _ALONG, middle + side * brush]) for side in (-1, 1))
    return np.concatenate([upper, lower[::-1]])


def _blend(one: _Color, other: _Color, share: float) -> _Color:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def _draw_behind(sheet: _Sheet, looks: _Looks) -> None:
    shade = _blend(looks.skin, (120, 40, 30), 0.3)
    if looks.long_hair:
        sheet.paint(_oval(0, 0.07, looks.head_width + 0.06, 0.34, square=0.8), _blend(looks.hair, _DARK, 0.25))
    sheet.paint(_oval(0, 0.62, 0.4, 0.3, square=0.7), looks.cloth)
    sheet.paint(_oval(0, 0.31, 0.115, 0.1), _blend(looks.cloth, _DARK, 0.2))
    sheet.paint(_oval(0, 0.24, 0.095, 0.15, square=0.7), shade)
    for side in (-1, 1):
        sheet.paint(_oval(side * looks.head_width, 0.0, 0.028, 0.05), shade)


def _draw_head(sheet: _Sheet, looks: _Looks) -> None:
    shade = _blend(looks.skin, (110, 40, 30), 0.35)
    light = _blend(looks.skin, _WHITE, 0.35)
    width, height = looks.head_width, looks.head_height
    outline = _oval(0, 0, width, height, taper=looks.jaw, square=looks.chin)
    sheet.paint(outline, shade)
    sheet.paint(_oval(0, -0.01, width * 0.84, height * 0.86, taper=looks.jaw), looks.skin, softness=0.02)
    sheet.paint(_oval(0, -0.13, width * 0.5, 0.05), light, opacity=0.6, softness=0.03)
    for side in (-1, 1):
        sheet.paint(_oval(side * 0.115, 0.085, 0.04, 0.03), (226, 96, 84), opacity=0.3, softness=0.015)
        sheet.paint(_oval(side * 0.1, 0.045, 0.04, 0.02), light, opacity=0.4, softness=0.015)
    if looks.beard > 0:
        # From the ears along the chin, and back below the mouth.
        chin = outline[outline[:, 1] > width / 6]
        across = np.linspace(-0.9, 0.9, 40)
        ears, lips = width / 6, looks.mouth_height + 2.5 * looks.lips
        cheeks = np.column_stack([width * across, ears + (lips - ears) * (1 - np.abs(across) ** 3)])
        stubble = _blend(looks.hair, _blend(looks.skin, _DARK, 0.6), 0.4)
        sheet.paint(np.concatenate([chin, cheeks]), stubble, opacity=0.4 + 0.4 * looks.beard, softness=0.004)


def _draw_eyes(sheet: _Sheet, looks: _Looks) -> None:
    shade = _blend(looks.skin, (70, 24, 24), 0.55)
    y, width, tall = looks.eye_height, looks.eye_width, looks.eye_open
    for side in (-1, 1):
        x, tilt = side * looks.eye_apart, side * looks.eye_tilt
        sheet.paint(_oval(x, y - 0.008, 0.062, 0.04), shade, opacity=looks.socket, softness=0.014)
        sheet.paint(_stroke(x, y, width, tall, tilt=tilt), _WHITE)
        sheet.paint(_oval(x, y, tall * 0.9, tall * 0.95), looks.iris)
        sheet.paint(_oval(x, y, tall * 0.45, tall * 0.45), _DARK)
        sheet.paint(_oval(x - 0.005, y - 0.006, 0.004, 0.004), _WHITE)
        sheet.paint(_stroke(x, y - tall, width * 1.06, 0.005, bend=tall * 0.95, tilt=tilt), _DARK)
        sheet.paint(_stroke(x, y + tall, width, 0.0025, bend=-tall * 0.95, tilt=tilt), shade, opacity=0.7)
        brow = y - looks.brow_rise
        stroke = _stroke(x, brow, 0.056, looks.brow_thick, bend=looks.brow_bend, tilt=side * looks.brow_tilt)
        sheet.paint(stroke, _blend(looks.hair, _DARK, 0.45), opacity=0.92, softness=0.002)


def _draw_nose(sheet: _Sheet, looks: _Looks) -> None:
    shade = _blend(looks.skin, (70, 24, 24), 0.5)
    tip, width = looks.eye_height + looks.nose_length, looks.nose_width
    bridge = np.array([[-0.012, looks.eye_height], [0.002, looks.eye_height], [-width * 0.5, tip], [-width, tip]])
    sheet.paint(bridge, shade, opacity=0.5, softness=0.008)
    sheet.paint(_oval(0.004, (looks.eye_height + tip) / 2, 0.008, 0.05), _WHITE, opacity=0.35, softness=0.008)
    sheet.paint(_oval(0, tip, width, 0.022), _blend(looks.skin, shade, 0.25), softness=0.006)
    sheet.paint(_oval(0, tip - 0.006, width * 0.5, 0.012), _WHITE, opacity=0.3, softness=0.006)
    sheet.paint(_stroke(0, tip + 0.018, width, 0.006, bend=-0.008), shade, softness=0.004)
    for side in (-1, 1):
        sheet.paint(
            _oval(side * width * 0.5, tip + 0.012, width * 0.22, 0.006), _blend(shade, _DARK, 0.6), softness=0.002
        )


def _draw_mouth(sheet: _Sheet, looks: _Looks) -> None:
    lip = _blend(looks.skin, (176, 40, 52), 0.35 + 0.5 * looks.rouge)
    y = looks.mouth_height
    width, full, bend = looks.mouth_width, looks.lips, -looks.smile
    sheet.paint(_stroke(0, y - full * 0.6, width, full, bend=bend + full * 0.6), lip)
    sheet.paint(_stroke(0, y + full * 0.9, width * 0.86, full * 1.2, bend=bend - full * 0.9), _blend(lip, _WHITE, 0.12))
    sheet.paint(_stroke(0, y, width * 1.02, 0.0045, bend=bend), _blend(lip, _DARK, 0.7))
    sheet.paint(_oval(0, y + full * 2.6, width * 0.6, 0.008), _DARK, opacity=0.25, softness=0.008)
    if looks.moustache > 0:
        y -= full * 1.5 + 0.008
        sheet.paint(_stroke(0, y, width * 1.1, 0.008 + 0.01 * looks.moustache, bend=0.016), looks.hair, softness=0.003)


def _draw_hair(sheet: _Sheet, looks: _Looks) -> None:
    width, height = looks.head_width, looks.head_height
    shine = _blend(looks.hair, _WHITE, 0.3)
    # From ear to ear over the crown, and back along the hairline, which rises from a point beside the parting.
    turn = np.linspace(np.pi, 2 * np.pi, 80)
    curl = 1 + 0.035 * max(looks.curls, 0) * np.sin(24 * turn)
    crown = _oval_points(turn, width + 0.018, height + looks.volume, square=0.86) * curl[:, None]
    across = np.linspace(1, -1, 40)
    rise = height * looks.hairline * (1 - 0.3 * np.abs(across - 0.6 * looks.parting)) * (1 - across**4)
    line = np.column_stack([(width - 0.012) * across, -rise])
    sheet.paint(np.concatenate([crown, line]), looks.hair, softness=0.0015)
    sheet.paint(_stroke(0.06 * looks.parting, -height * 0.98, width * 0.55, 0.01, bend=0.03), shine, softness=0.008)
    down = np.linspace(0, 1, 20)
    length = 0.3 if looks.long_hair else 0.07 + 0.08 * looks.hair_sides
    for side in (-1, 1):
        outer = np.column_stack([width + 0.017 + 0.03 * length * np.sin(np.pi * down), length * down])
        inner = np.column_stack([width - 0.014 + 0.02 * down**2, length * down])
        lock = np.concatenate([[(width - 0.012, -0.08), (width + 0.01, -0.08)], outer, inner[::-1]]) * (side, 1)
        sheet.paint(lock, looks.hair, softness=0.0015)


def _draw_glasses(sheet: _Sheet, looks: _Looks) -> None:
    if looks.glasses < 0:
        return
    frame = (40, 36, 40)
    for side in (-1, 1):
        rim = _oval(side * looks.eye_apart, looks.eye_height, 0.066, 0.05, square=0.5 + looks.glasses / 2)
        inside = _oval(side * looks.eye_apart, looks.eye_height, 0.06, 0.044, square=0.5 + looks.glasses / 2)
        sheet.paint(np.concatenate([rim, rim[:1], inside[:1], inside[::-1]]), frame)
    sheet.paint(_stroke(0, looks.eye_height - 0.01, looks.eye_apart - 0.06, 0.006, bend=0.006), frame)


def _shade(drawing: Image.Image, skin: np.random.Generator) -> Image.Image:
    """Make the head lighter and darker in places, on both sides alike, as skin and what lies under it do."""
    cells = skin.normal(0, _SHADED, (_SHADES, _SHADES))
    places = _enlarged(cells + cells[:, ::-1], drawing.size)
    down, across = np.meshgrid(*(np.linspace(-1, 1, side) for side in reversed(drawing.size)), indexing="ij")
    head = np.clip(1.5 - (across / 0.42) ** 2 - (down / 0.52) ** 2, 0, 1)
    pixels = np.asarray(drawing) * (1 + places * head)[..., None]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _bend(drawing: Image.Image, seed: int, shot: int) -> Image.Image:
    """Move what lies within the picture: a person's own way in all shots, and a little more in each, as faces move."""
    shape = (_BENDS + 1, _BENDS + 1, 2)
    own, moved = np.random.default_rng((seed, 0, 0)), np.random.default_rng((seed, shot, 1))
    both = own.normal(0, _BENT, shape)
    moves = (both + both[:, ::-1] * (-1, 1)) / math.sqrt(2) + own.normal(0, _ASKEW, shape)
    moves += moved.normal(0, _MOVED, shape)
    fine = np.stack([_enlarged(moves[..., axis], (_BENDS * 3, _BENDS * 3)) for axis in (0, 1)], axis=-1)
    fine[[0, 1, -2, -1]] = fine[:, [0, 1, -2, -1]] = 0  # the picture's edge stays where it is
    edges = np.rint(np.linspace(0, drawing.width, len(fine))).astype(int)
    corners = np.stack(np.meshgrid(edges, edges), axis=-1) + drawing.width * fine
    quads = [
        (
            (int(edges[x]), int(edges[y]), int(edges[x + 1]), int(edges[y + 1])),
            tuple(
                np.concatenate([corners[y, x], corners[y + 1, x], corners[y + 1, x + 1], corners[y, x + 1]]).tolist()
            ),
        )
        for y in range(len(edges) - 1)
        for x in range(len(edges) - 1)
    ]
    return drawing.transform(drawing.size, Image.Transform.MESH, quads, Image.Resampling.BICUBIC)


def _enlarged(cells: _Points, size: tuple[int, int]) -> _Points:
    image = Image.fromarray(cells.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(image, np.float64)


def _expose(drawing: Image.Image, camera: np.random.Generator) -> bytes:
    """Light the drawing from a side, add the noise of a sensor, and store it as JPEG."""
    height, width = drawing.height, drawing.width
    across, down = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
    slope_x, slope_y = camera.uniform(-0.04, 0.04, 2)
    light = camera.uniform(0.95, 1.03) + slope_x * across + slope_y * down
    tint = camera.uniform(0.995, 1.005, 3)
    noise = camera.normal(0, 1.5, (height, width, 1))
    pixels = np.asarray(drawing) * light[..., None] * tint + noise
    stored = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(stored, "JPEG", quality=90)
    return stored.getvalue()
