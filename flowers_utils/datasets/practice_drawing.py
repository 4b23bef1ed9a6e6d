"""Draws practice flowers: petals by a polar curve, then pose, company, light and focus by chance.

Everything works on a whole batch. Positions are fractions of the picture, so the same seed gives
the same flowers at every size. Colour is no trait: as with tulips, each species comes in every
hue, so form has to be learned.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from flowers_utils.datasets.practice_species import CHOICES, PATTERNS, species_row


class Dice:
    """Seeded random numbers for one batch, shaped to stand beside pictures (B, S, S)."""

    def __init__(self, count: int, seed: int):
        self.count, self.generator = count, torch.Generator().manual_seed(seed)

    def uniform(self, low: float, high: float) -> Tensor:
        """(B, 1, 1) between `low` and `high`."""
        return low + (high - low) * torch.rand(self.count, 1, 1, generator=self.generator)

    def chance(self, probability: float) -> Tensor:
        """(B, 1, 1) of ones and zeros."""
        return (self.uniform(0, 1) < probability).float()

    def noise(self, size: int, *, cells: int) -> Tensor:
        """(B, 1, size, size) smooth noise around 0, `cells` hills across the picture."""
        coarse = torch.randn(self.count, 1, cells, cells, generator=self.generator)
        return functional.interpolate(coarse, size=(size, size), mode="bicubic")


def rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """HSV to RGB: (B, 1, 1) each to (B, 3, 1, 1)."""
    offsets = torch.tensor([5.0, 3.0, 1.0]).view(1, 3, 1, 1)
    k = (offsets + 6 * hue.unsqueeze(1)) % 6
    ramp = torch.minimum(k, 4 - k).clamp(0, 1)
    return value.unsqueeze(1) * (1 - saturation.unsqueeze(1) * ramp)


def numbers(trait: str, flower: dict[str, Tensor]) -> list[Tensor]:
    """What a trait's words stand for, in each flower of the batch: (B, 1, 1) a number."""
    table = torch.tensor(list(CHOICES[trait].values()), dtype=torch.float32)
    chosen = table.view(len(table), -1)[flower[trait]]
    return [column.view(-1, 1, 1) for column in chosen.unbind(1)]


def some(flower: dict[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    """The flowers of the batch that stand in `rows`."""
    return {key: value[rows] for key, value in flower.items()}


def axes(size: int) -> tuple[Tensor, Tensor]:
    """x and y of every pixel centre from -1 to 1, shapes (1, 1, S) and (1, S, 1)."""
    line = (torch.arange(size) + 0.5) * 2 / size - 1
    return line.view(1, 1, size), line.view(1, size, 1)


def turn(x: Tensor, y: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Turn coordinates by an angle in radians."""
    return x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()


def edge_cover(distance: Tensor, scale: Tensor | float = 1.0) -> Tensor:
    """Soft edge one pixel wide: 1 where `distance` (in units of `scale`) is positive, else 0."""
    return (0.5 + distance * scale * distance.shape[-1] / 2).clamp(0, 1)


def paint(canvas: Tensor, colour: Tensor, cover: Tensor) -> Tensor:
    """Lay `colour` over a canvas (B, 3, S, S) where `cover` (B, S, S) is 1."""
    return torch.lerp(canvas, colour.expand_as(canvas), cover.unsqueeze(1))


def accents(u: Tensor, depth: Tensor, edge: Tensor, pattern: Tensor) -> Tensor:
    """Where each flower of the batch wears its accent colour: 0 to 1, (B, S, S)."""
    worn = torch.empty_like(depth)
    for index, where in enumerate(PATTERNS.values()):
        rows = (pattern == index).nonzero().squeeze(1)
        worn[rows] = where(u[rows], depth[rows], edge[rows])
    return worn


def petals(radius: Tensor, angle: Tensor, flower: dict, *, inner: bool) -> tuple[Tensor, Tensor]:
    """One ring of petals: colour (B, 3, S, S) and cover (B, S, S).

    `radius` and `angle` (B, S, S) are measured from the flower's middle; it reaches out to 1.
    """
    (count,) = numbers("petals", flower)
    power, base, notch, fringe = numbers("outline", flower)
    place = angle * count / (2 * math.pi) + 0.5 * inner
    number, u = place.floor() % count, (place % 1) * 2 - 1
    curve = (1 - u.abs().clamp(1e-4, 1) ** power).clamp(1e-4, 1) ** 0.6
    edge = (base + (1 - base) * curve) * (1 - notch * torch.exp(-((u / 0.3) ** 2)))
    edge = edge - fringe * (1 + (u * 16).cos())
    uneven = 1 + flower["uneven"] * (number * 2.4 + flower["phase"]).sin()
    reach = uneven * (0.62 if inner else 1.0)
    depth = radius / reach
    offset, saturation, value = numbers("accent", flower)
    accent = rgb((flower["hue"] + offset) % 1, saturation, value)
    colour = rgb(flower["hue"], flower["saturation"], flower["value"])
    colour = torch.lerp(colour, accent, accents(u, depth, edge, flower["pattern"]).unsqueeze(1))
    veins = 1 - 0.10 * (u * 9).cos().clamp(0, 1) * depth.clamp(0, 1)
    shade = veins * (1 - 0.5 * u**4) * (0.72 + 0.32 * depth.clamp(0, 1)) * (1.12 if inner else 1.0)
    scale = flower["size"] * flower["tilt"].sqrt()
    return colour * shade.unsqueeze(1), edge_cover((edge - depth) * reach, scale)


def bloom(canvas: Tensor, flower: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Paint a flower and its shadow on each picture: the new canvas, and the cover (B, S, S).

    `canvas` is (B, 3, S, S); `flower` holds the traits, and the pose as `random_pose` gives it.
    """
    x, y = axes(canvas.shape[-1])
    dx, dy = turn(x - flower["x"], y - flower["y"], flower["lean"])
    dx, dy = dx / flower["size"], dy / (flower["size"] * flower["tilt"])
    angle = torch.atan2(dy, dx)
    radius = (dx * dx + dy * dy).sqrt() / (1 + flower["cup"] * angle.sin())
    (twist,) = numbers("twist", flower)
    spun = angle + flower["turn"] + twist * radius
    colour, cover = petals(radius, spun, flower, inner=False)
    fallen = torch.roll(cover, (canvas.shape[-1] // 16,) * 2, (1, 2)).unsqueeze(1)
    shadow = functional.avg_pool2d(fallen, 5, stride=1, padding=2)
    canvas = paint(canvas * (1 - 0.45 * shadow), colour, cover)
    double = flower["layers"].nonzero().squeeze(1)
    inner = petals(radius[double], spun[double], some(flower, double), inner=True)
    canvas[double] = paint(canvas[double], *inner)
    share, hue, saturation, value = numbers("centre", flower)
    grain = 1 + 0.3 * (dx * 26).sin() * (dy * 26).sin() - 0.4 * (radius / share).clamp(0, 1) ** 4
    disc = edge_cover(share - radius, flower["size"] * flower["tilt"].sqrt())
    canvas = paint(canvas, rgb(hue, saturation, value) * grain.unsqueeze(1), disc)
    return canvas, torch.maximum(cover, disc)


def leaf(size: int, dice: Dice, *, present: Tensor) -> tuple[Tensor, Tensor]:
    """A leaf with a pale midrib somewhere: colour (B, 3, S, S), and cover (B, S, S)."""
    x, y = axes(size)
    dx, dy = turn(
        x - dice.uniform(-0.9, 0.9), y - dice.uniform(-0.9, 0.9), dice.uniform(0, 2 * math.pi)
    )
    length, width = dice.uniform(0.5, 1.1), dice.uniform(0.08, 0.25)
    inside = width * (1 - (dx / length) ** 2) - dy.abs()
    green = rgb(dice.uniform(0.22, 0.40), dice.uniform(0.35, 0.8), dice.uniform(0.2, 0.6))
    rib = 0.78 + 0.45 * (1 - dy.abs() / 0.06).clamp(min=0)
    return green * rib.unsqueeze(1), edge_cover(inside) * present


def stem(size: int, flower: dict[str, Tensor], dice: Dice) -> tuple[Tensor, Tensor]:
    """A bent stem from the flower's middle downwards: colour (B, 3, 1, 1), and cover (B, S, S)."""
    x, y = axes(size)
    down = (y - flower["y"]).clamp(min=0)
    bent = (x - flower["x"] - dice.uniform(-0.3, 0.3) * down**2).abs()
    green = rgb(dice.uniform(0.22, 0.36), dice.uniform(0.4, 0.7), dice.uniform(0.25, 0.5))
    return green, edge_cover(0.045 - bent) * (down > 0)


def background(dice: Dice, size: int) -> Tensor:
    """Out-of-focus meadow, soil, sky or wall: (B, 3, size, size)."""
    first = rgb(dice.uniform(0, 1), dice.uniform(0.1, 0.5), dice.uniform(0.1, 0.7))
    green = rgb(dice.uniform(0.2, 0.4), dice.uniform(0.2, 0.6), dice.uniform(0.15, 0.55))
    mix = torch.sigmoid(2 * dice.noise(size, cells=5))
    canvas = torch.lerp(green.expand(-1, -1, size, size), first.expand(-1, -1, size, size), mix)
    canvas = canvas * (1 + 0.15 * dice.noise(size, cells=12))
    x, y = axes(size)
    for _ in range(3):  # far flowers, out of focus
        far = (x - dice.uniform(-1, 1)) ** 2 + (y - dice.uniform(-1, 1)) ** 2
        spot = torch.sigmoid((dice.uniform(0.05, 0.2) - far.sqrt()) * 25) * dice.chance(0.5)
        colour = rgb(dice.uniform(0, 1), dice.uniform(0.2, 0.8), dice.uniform(0.5, 0.9))
        canvas = paint(canvas, colour, spot * 0.7)
    return canvas


def photograph(canvas: Tensor, dice: Dice) -> Tensor:
    """Light, shadow, defocus and sensor noise over a finished scene; stays (B, 3, S, S)."""
    size = canvas.shape[-1]
    x, y = axes(size)
    warm, tint = dice.uniform(-0.25, 0.25), dice.uniform(-0.12, 0.12)
    light = torch.stack([warm, tint, -warm], 1).exp() * dice.uniform(0.7, 1.3).unsqueeze(1)
    slope = 1 + dice.uniform(-0.3, 0.3) * x + dice.uniform(-0.3, 0.3) * y
    shadow = 1 - 0.45 * dice.chance(0.5) * torch.sigmoid(6 * dice.noise(size, cells=4)[:, 0])
    canvas = canvas * light * (slope * shadow).unsqueeze(1)
    small = functional.interpolate(canvas, size=(24, 24), mode="area")
    soft = functional.interpolate(small, size=(size, size), mode="bilinear")
    canvas = torch.lerp(canvas, soft, dice.uniform(-0.7, 0.3).clamp(0, 1).unsqueeze(1))
    grain = torch.randn(canvas.shape, generator=dice.generator)
    return canvas + dice.uniform(0, 0.02).unsqueeze(1) * grain


def random_pose(dice: Dice) -> dict[str, Tensor]:
    """Where a bloom stands, how we look at it, and how it differs from others of its species.

    Positions and size are in halves of the picture, angles in radians; each value is (B, 1, 1).
    """
    return {
        "x": dice.uniform(-0.2, 0.2),
        "y": dice.uniform(-0.2, 0.2),
        "size": dice.uniform(0.7, 0.95),
        "tilt": dice.uniform(0.7, 1.0),  # 1: seen from the front
        "cup": dice.uniform(0, 0.15),  # 0: wide open
        "lean": dice.uniform(0, 2 * math.pi),
        "turn": dice.uniform(0, 2 * math.pi),
        "hue": dice.uniform(0.55, 1.17) % 1,  # from blue over red to yellow: leaves are green
        "saturation": dice.uniform(0.45, 0.9),
        "value": dice.uniform(0.75, 1.0),
        "uneven": dice.uniform(0, 0.06),
        "phase": dice.uniform(0, 2 * math.pi),
    }


def draw_scenes(species: Tensor, *, size: int, seed: int) -> tuple[Tensor, Tensor]:
    """One photograph-like picture a row of `species` (B, 7), and where its flowers are.

    Pictures are uint8 (B, 3, size, size), masks bool (B, size, size): what a leaf in front hides is
    no flower.
    """
    dice = Dice(len(species), seed)
    canvas = background(dice, size)
    for _ in range(2):
        canvas = paint(canvas, *leaf(size, dice, present=dice.chance(0.5)))
    traits = dict(zip(CHOICES, species.unbind(1), strict=True))
    front, behind = ({**traits, **random_pose(dice)} for _ in range(2))
    canvas = paint(canvas, *stem(size, front, dice))
    direction = dice.uniform(0, 2 * math.pi)
    behind["x"] = front["x"] + 0.75 * direction.cos()
    behind["y"] = front["y"] + 0.75 * direction.sin()
    behind["size"] = behind["size"] * 0.6
    flowers = torch.zeros(len(species), size, size)
    two = dice.chance(0.25).view(-1).nonzero().squeeze(1)
    canvas[two], flowers[two] = bloom(canvas[two], some(behind, two))
    canvas, cover = bloom(canvas, front)
    colour, hidden = leaf(size, dice, present=dice.chance(0.2))
    canvas = photograph(paint(canvas, colour, hidden), dice)
    masks = torch.maximum(flowers, cover) * (1 - hidden) > 0.5
    return (canvas.clamp(0, 1) * 255).round().to(torch.uint8), masks


def draw_species(*, count: int = 6, seed: int = 0, size: int = 64, **traits: str) -> Tensor:
    """Pictures of a species of your own choice: uint8 (count, 3, size, size).

    Name its traits in words, as in `draw_species(petals="five", outline="heart")`:
    practice_species.WORDS lists them, and a trait that is not named takes its first word.
    Raises FlowersError for a word that is not there.
    """
    species = torch.tensor([species_row(traits)] * count)
    pictures, _ = draw_scenes(species, size=size, seed=seed)
    return pictures
