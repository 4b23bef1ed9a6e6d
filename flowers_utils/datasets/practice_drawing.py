"""Draws practice flowers: petals by a polar curve, then pose, company, light and focus by chance.

Everything works on a whole batch. Positions are fractions of the picture, so the same seed gives
the same flowers at every size. `species` is an int64 table (B, 7), one row of traits an image.
Colour is no trait: as with tulips, each species comes in every hue, so form has to be learned.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

TRAITS = ("petals", "outline", "pattern", "accent", "centre", "layers", "twist")
PETALS = (3, 5, 8)
TWIST = 1.3  # radians by which a twisted flower's petals turn from the middle to their tips
OUTLINES = (  # each: power of the petal's curve, share of the radius where petals meet, notch depth
    (1.0, 0.20, 0.0),  # pointed
    (2.4, 0.38, 0.0),  # round
    (2.6, 0.45, 0.45),  # heart-shaped
)
PATTERNS = ("eye", "stripe", "margin", "spots", "tips")
ACCENTS = (  # each: hue against the petal's, saturation, value
    (0.0, 0.08, 1.0),  # white
    (0.0, 0.90, 0.28),  # dark
    (0.40, 0.85, 1.0),  # contrasting
)
CENTRES = (  # each: radius as a share of the flower, hue, saturation, value
    (0.16, 0.14, 0.9, 0.95),
    (0.34, 0.13, 0.9, 0.85),
    (0.30, 0.06, 0.8, 0.25),
    (0.20, 0.27, 0.7, 0.55),
)
CHOICES = (len(PETALS), len(OUTLINES), len(PATTERNS), len(ACCENTS), len(CENTRES), 2, 2)


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

    def noise(self, size: int, *, cells: int, channels: int = 1) -> Tensor:
        """(B, channels, size, size) smooth noise around 0, `cells` hills across the picture."""
        coarse = torch.randn(self.count, channels, cells, cells, generator=self.generator)
        return functional.interpolate(coarse, size=(size, size), mode="bicubic")


def rgb(hue: Tensor, saturation: Tensor | float, value: Tensor | float) -> Tensor:
    """HSV to RGB: (B, 1, 1) each to (B, 3, 1, 1)."""
    offsets = torch.tensor([5.0, 3.0, 1.0]).view(1, 3, 1, 1)
    k = (offsets + 6 * hue.unsqueeze(1)) % 6
    ramp = torch.minimum(k, 4 - k).clamp(0, 1)
    value = torch.as_tensor(value).expand_as(hue).unsqueeze(1)
    return value * (1 - torch.as_tensor(saturation).expand_as(hue).unsqueeze(1) * ramp)


def look_up(table: tuple, index: Tensor) -> list[Tensor]:
    """Rows of a table of numbers as one (B, 1, 1) tensor a column."""
    rows = torch.tensor(table, dtype=torch.float32).view(len(table), -1)[index]
    return [column.view(-1, 1, 1) for column in rows.unbind(1)]


def paint(canvas: Tensor, colour: Tensor, cover: Tensor) -> Tensor:
    """Lay `colour` over a canvas (B, 3, S, S) where `cover` (B, S, S) is 1."""
    return torch.lerp(canvas, colour.expand_as(canvas), cover.unsqueeze(1))


def axes(size: int) -> tuple[Tensor, Tensor]:
    """x and y of every pixel centre from -1 to 1, shapes (1, 1, S) and (1, S, 1)."""
    line = (torch.arange(size) + 0.5) * 2 / size - 1
    return line.view(1, 1, size), line.view(1, size, 1)


def turn(x: Tensor, y: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Turn coordinates by an angle in radians."""
    return x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()


def edge_cover(distance: Tensor, size: int, scale: Tensor | float = 1.0) -> Tensor:
    """Soft edge one pixel wide: 1 where `distance` (in units of `scale`) is positive, else 0."""
    return (0.5 + distance * scale * size / 2).clamp(0, 1)


def pattern_cover(u: Tensor, depth: Tensor, outline: Tensor, kind: Tensor) -> Tensor:
    """Where a petal wears the accent colour; u is -1..1 across, depth 0..1 along the petal."""
    eye = torch.sigmoid((0.55 - depth) * 22)
    stripe = torch.sigmoid((0.26 - u.abs()) * 16)
    margin = torch.sigmoid((depth - outline + 0.16) * 30)
    spots = torch.sigmoid(((u * 5.5).cos() * (depth * 13).sin() - 0.25) * 9)
    tips = torch.sigmoid((depth - 0.70) * 22)
    stack = torch.stack([eye, stripe, margin, spots, tips], 1)
    return stack[torch.arange(len(kind)), kind]


def petal_layer(
    canvas: Tensor, polar: tuple[Tensor, Tensor], species: Tensor, pose: dict, *, inner: bool
) -> Tensor:
    """Paint one ring of petals; polar holds radius and angle (B, S, S) from the flower's middle."""
    radius, angle = polar
    (count,) = look_up(PETALS, species[:, 0])
    power, base, notch = look_up(OUTLINES, species[:, 1])
    place = angle * count / (2 * math.pi) + 0.5 * inner
    number, u = place.floor() % count, (place % 1) * 2 - 1
    curve = (1 - u.abs().clamp(1e-4, 1) ** power).clamp(1e-4, 1) ** 0.6
    outline = (base + (1 - base) * curve) * (1 - notch * torch.exp(-((u / 0.3) ** 2)))
    uneven = 1 + pose["uneven"] * (number * 2.4 + pose["phase"]).sin()
    reach = uneven * (0.62 if inner else 1.0)
    depth = radius / reach
    offset, saturation, value = look_up(ACCENTS, species[:, 3])
    petal = rgb(pose["hue"], pose["saturation"], pose["value"])
    mark = pattern_cover(u, depth, outline, species[:, 2]).unsqueeze(1)
    colour = torch.lerp(petal, rgb((pose["hue"] + offset) % 1, saturation, value), mark)
    shade = (1 - 0.45 * u**2) * (0.80 + 0.25 * depth.clamp(0, 1)) * (1.12 if inner else 1.0)
    scale = pose["size"] * pose["tilt"].sqrt()
    cover = edge_cover((outline - depth) * reach, canvas.shape[-1], scale)
    return paint(canvas, colour * shade.unsqueeze(1), cover)


def bloom(canvas: Tensor, species: Tensor, pose: dict[str, Tensor]) -> Tensor:
    """Paint one flower a picture: canvas (B, 3, S, S), traits (B, 7), pose of `random_pose`."""
    size = canvas.shape[-1]
    x, y = axes(size)
    dx, dy = turn(x - pose["x"], y - pose["y"], pose["lean"])
    dx, dy = dx / pose["size"], dy / (pose["size"] * pose["tilt"])
    angle = torch.atan2(dy, dx)
    radius = (dx * dx + dy * dy).sqrt() / (1 + pose["cup"] * angle.sin())
    twist = (species[:, 6] * TWIST).view(-1, 1, 1)
    spun = angle + pose["turn"] + twist * radius
    canvas = petal_layer(canvas, (radius, spun), species, pose, inner=False)
    double = species[:, 5].nonzero().squeeze(1)
    polar, inner_pose = (radius[double], spun[double]), {k: v[double] for k, v in pose.items()}
    canvas[double] = petal_layer(canvas[double], polar, species[double], inner_pose, inner=True)
    share, hue, saturation, value = look_up(CENTRES, species[:, 4])
    grain = 1 + 0.25 * (dx * 24).sin() * (dy * 24).sin() - 0.35 * (radius / share).clamp(0, 1) ** 4
    disc = edge_cover(share - radius, size, pose["size"] * pose["tilt"].sqrt())
    return paint(canvas, rgb(hue, saturation, value) * grain.unsqueeze(1), disc)


def leaf(canvas: Tensor, dice: Dice, *, spread: float, present: Tensor) -> Tensor:
    """Paint a leaf with a pale midrib somewhere within `spread` of the middle, where `present`."""
    side = canvas.shape[-1]
    x, y = axes(side)
    dx, dy = turn(
        x - dice.uniform(-spread, spread), y - dice.uniform(-spread, spread), dice.uniform(0, 6.3)
    )
    length, width = dice.uniform(0.5, 1.1), dice.uniform(0.10, 0.28)
    inside = width * (1 - (dx / length) ** 2) - dy.abs()
    green = rgb(dice.uniform(0.20, 0.42), dice.uniform(0.35, 0.8), dice.uniform(0.2, 0.65))
    rib = 0.75 + 0.45 * torch.exp(-((dy / 0.03) ** 2))
    return paint(canvas, green * rib.unsqueeze(1), edge_cover(inside, side) * present)


def background(dice: Dice, size: int) -> Tensor:
    """Out-of-focus meadow, soil, sky or wall: (B, 3, size, size)."""
    first = rgb(dice.uniform(0, 1), dice.uniform(0.1, 0.6), dice.uniform(0.1, 0.7))
    green = rgb(dice.uniform(0.2, 0.4), dice.uniform(0.2, 0.7), dice.uniform(0.15, 0.6))
    mix = torch.sigmoid(2 * dice.noise(size, cells=5))
    canvas = torch.lerp(green.expand(-1, -1, size, size), first.expand(-1, -1, size, size), mix)
    canvas = canvas + 0.05 * dice.noise(size, cells=14)
    x, y = axes(size)
    for _ in range(3):  # far flowers, out of focus
        far = (x - dice.uniform(-1, 1)) ** 2 + (y - dice.uniform(-1, 1)) ** 2
        spot = torch.sigmoid((dice.uniform(0.05, 0.25) - far.sqrt()) * 25) * dice.chance(0.5)
        colour = rgb(dice.uniform(0, 1), dice.uniform(0.2, 0.9), dice.uniform(0.5, 1))
        canvas = paint(canvas, colour, spot * 0.8)
    return canvas


def photograph(canvas: Tensor, dice: Dice) -> Tensor:
    """Light, shadow, defocus and sensor noise over a finished scene; stays (B, 3, S, S)."""
    size = canvas.shape[-1]
    x, y = axes(size)
    warm, tint = dice.uniform(-0.25, 0.25), dice.uniform(-0.12, 0.12)
    light = torch.stack([warm, tint, -warm], 1).exp() * dice.uniform(0.8, 1.35).unsqueeze(1)
    slope = 1 + dice.uniform(-0.3, 0.3) * x + dice.uniform(-0.3, 0.3) * y
    shadow = 1 - 0.4 * dice.chance(0.5) * torch.sigmoid(6 * dice.noise(size, cells=4)[:, 0])
    canvas = canvas * light * (slope * shadow).unsqueeze(1)
    small = functional.interpolate(canvas, size=(18, 18), mode="area")
    soft = functional.interpolate(small, size=(size, size), mode="bicubic")
    canvas = torch.lerp(canvas, soft, dice.uniform(-0.6, 0.25).clamp(0, 1).unsqueeze(1))
    return canvas + dice.uniform(0, 0.03).unsqueeze(1) * dice.noise(size, cells=size, channels=3)


def random_pose(dice: Dice) -> dict[str, Tensor]:
    """Where a bloom stands, how we look at it, and how it differs from others of its species.

    Positions and size are in halves of the picture, angles in radians; each value is (B, 1, 1).
    """
    return {
        "x": dice.uniform(-0.1, 0.1),
        "y": dice.uniform(-0.1, 0.1),
        "size": dice.uniform(0.85, 1.05),
        "tilt": dice.uniform(0.85, 1.0),  # 1: seen from the front
        "cup": dice.uniform(0, 0.12),  # 0: wide open
        "lean": dice.uniform(0, 2 * math.pi),
        "turn": dice.uniform(0, 2 * math.pi),
        "hue": dice.uniform(0, 1),
        "saturation": dice.uniform(0.5, 0.9),
        "value": dice.uniform(0.75, 1.0),
        "uneven": dice.uniform(0, 0.05),
        "phase": dice.uniform(0, 2 * math.pi),
    }


def draw_flowers(species: Tensor, *, size: int, seed: int) -> Tensor:
    """One photograph-like picture for each row of traits: uint8 (B, 3, size, size)."""
    dice = Dice(len(species), seed)
    canvas = background(dice, size)
    for _ in range(2):
        canvas = leaf(canvas, dice, spread=0.9, present=dice.chance(0.5))
    front, behind = random_pose(dice), random_pose(dice)
    direction = dice.uniform(0, 2 * math.pi)
    behind["x"] = front["x"] + 0.8 * direction.cos()
    behind["y"] = front["y"] + 0.8 * direction.sin()
    behind["size"] = behind["size"] * 0.55
    two = dice.chance(0.25).view(-1).nonzero().squeeze(1)
    canvas[two] = bloom(canvas[two], species[two], {k: v[two] for k, v in behind.items()})
    canvas = bloom(canvas, species, front)
    canvas = leaf(canvas, dice, spread=0.9, present=dice.chance(0.2))
    canvas = photograph(canvas, dice)
    return (canvas.clamp(0, 1) * 255).round().to(torch.uint8)
