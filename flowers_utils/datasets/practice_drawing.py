"""Draws a batch of practice flowers: petals by a polar curve; pose, light and focus are random.

Positions are fractions of the picture, so the same seed gives the same flowers at every size.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from flowers_utils.datasets.practice_species import CHOICES

# How flowers of one species differ; angles in radians. Positions and size in halves of the picture:
POSE = {"x": (-0.2, 0.2), "y": (-0.2, 0.2), "size": (0.7, 0.95)}
POSE |= {"tilt": (0.7, 1.0), "cup": (0, 0.15)}  # seen from the front: 1, and wide open: 0
POSE |= {"lean": (0, 2 * math.pi), "turn": (0, 2 * math.pi)}
# Each species occurs in every hue from blue over red (1.0) to yellow, because leaves are green.
POSE |= {"hue": (0.55, 1.17), "saturation": (0.45, 0.9), "value": (0.75, 1.0)}
POSE |= {"uneven": (0, 0.06), "phase": (0, 2 * math.pi)}  # how much petals differ in length


class Randomness:
    """Seeded random numbers for one batch, shaped to be combined with pictures (B, S, S)."""

    def __init__(self, count: int, seed: int):
        self.count, self.generator = count, torch.Generator().manual_seed(seed)

    def uniform(self, low: float, high: float) -> Tensor:
        """(B, 1, 1) between `low` and `high`."""
        return low + (high - low) * torch.rand(self.count, 1, 1, generator=self.generator)

    def noise(self, size: int, *, cells: int) -> Tensor:
        """(B, 1, size, size) smooth noise around 0, with `cells` hills across the picture."""
        coarse = torch.randn(self.count, 1, cells, cells, generator=self.generator)
        return functional.interpolate(coarse, size=(size, size), mode="bicubic")

    def colour(self, *ranges: tuple[float, float]) -> Tensor:
        """(B, 3, 1, 1) RGB, with hue, saturation and value drawn from three ranges."""
        return rgb(*(self.uniform(*each) for each in ranges))


def rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """HSV to RGB: (B, 1, 1) each to (B, 3, 1, 1)."""
    place = (torch.tensor([5.0, 3.0, 1.0]).view(1, 3, 1, 1) + 6 * hue.unsqueeze(1)) % 6
    ramp = torch.minimum(place, 4 - place).clamp(0, 1)
    return value.unsqueeze(1) * (1 - saturation.unsqueeze(1) * ramp)


def numbers(trait: str, flower: dict[str, Tensor]) -> Tensor:
    """The numbers that stand in CHOICES for each flower's word: (numbers, B, 1, 1)."""
    table = torch.tensor(list(CHOICES[trait].values()), dtype=torch.float32)
    return table.view(len(table), -1)[flower[trait]].T[:, :, None, None]


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
    """Lay `colour` (B, 3, 1 or S, ...) over a canvas (B, 3, S, S) where `cover` (B, S, S) is 1."""
    return torch.lerp(canvas, colour, cover.unsqueeze(1))


def petals(radius: Tensor, angle: Tensor, flower: dict, *, inner: bool) -> tuple[Tensor, Tensor]:
    """One ring of petals, `radius` and `angle` (B, S, S): colour (B, 3, S, S), cover (B, S, S)."""
    (count,) = numbers("petals", flower)
    power, base, notch, fringe = numbers("outline", flower)
    place = angle * count / (2 * math.pi) + 0.5 * inner
    number, u = place.floor() % count, (place % 1) * 2 - 1  # which petal, and where across it
    curve = (1 - u.abs().clamp(1e-4, 1) ** power).clamp(1e-4, 1) ** 0.6
    edge = (base + (1 - base) * curve) * (1 - notch * torch.exp(-((u / 0.3) ** 2)))
    edge = edge - fringe * (1 + (u * 16).cos())
    uneven = 1 + flower["uneven"] * (number * 2.4 + flower["phase"]).sin()
    reach = uneven * (0.62 if inner else 1.0)
    depth = radius / reach
    accent_cover = torch.empty_like(depth)
    for index, pattern in enumerate(CHOICES["pattern"].values()):
        rows = (flower["pattern"] == index).nonzero().squeeze(1)
        accent_cover[rows] = pattern(u[rows], depth[rows], edge[rows])
    offset, saturation, value = numbers("accent", flower)
    hue = flower["hue"] % 1
    colour = rgb(hue, flower["saturation"], flower["value"])
    colour = paint(colour, rgb((hue + offset) % 1, saturation, value), accent_cover)
    veins = 1 - 0.10 * (u * 9).cos().clamp(0, 1) * depth.clamp(0, 1)
    shade = veins * (1 - 0.5 * u**4) * (0.72 + 0.32 * depth.clamp(0, 1)) * (1.12 if inner else 1.0)
    scale = flower["size"] * flower["tilt"].sqrt()
    return colour * shade.unsqueeze(1), edge_cover((edge - depth) * reach, scale)


def bloom(canvas: Tensor, flower: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Paint a flower and its shadow on each picture: the new canvas, and the cover (B, S, S)."""
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
    doubled = {key: value[double] for key, value in flower.items()}
    inner = petals(radius[double], spun[double], doubled, inner=True)
    canvas[double] = paint(canvas[double], *inner)
    share, hue, saturation, value = numbers("centre", flower)
    grain = 1 + 0.3 * (dx * 26).sin() * (dy * 26).sin() - 0.4 * (radius / share).clamp(0, 1) ** 4
    disc = edge_cover(share - radius, flower["size"] * flower["tilt"].sqrt())
    canvas = paint(canvas, rgb(hue, saturation, value) * grain.unsqueeze(1), disc)
    return canvas, torch.maximum(cover, disc)


def leaf(size: int, random: Randomness, *, present: Tensor) -> tuple[Tensor, Tensor]:
    """A leaf with a pale midrib at any place: colour (B, 3, S, S), and cover (B, S, S)."""
    x, y = axes(size)
    x, y = x - random.uniform(-0.9, 0.9), y - random.uniform(-0.9, 0.9)
    dx, dy = turn(x, y, random.uniform(0, 2 * math.pi))
    length, width = random.uniform(0.5, 1.1), random.uniform(0.08, 0.25)
    inside = width * (1 - (dx / length) ** 2) - dy.abs()
    green = random.colour((0.22, 0.40), (0.35, 0.8), (0.2, 0.6))
    rib = 0.78 + 0.45 * (1 - dy.abs() / 0.06).clamp(min=0)
    return green * rib.unsqueeze(1), edge_cover(inside) * present


def background(size: int, random: Randomness) -> Tensor:
    """Out-of-focus meadow, soil, sky or wall: (B, 3, size, size)."""
    first = random.colour((0, 1), (0.1, 0.5), (0.1, 0.7))
    green = random.colour((0.2, 0.4), (0.2, 0.6), (0.15, 0.55))
    canvas = torch.lerp(green, first, torch.sigmoid(2 * random.noise(size, cells=5)))
    canvas = canvas * (1 + 0.15 * random.noise(size, cells=12))
    x, y = axes(size)
    for _ in range(3):  # distant flowers, out of focus
        far = (x - random.uniform(-1, 1)) ** 2 + (y - random.uniform(-1, 1)) ** 2
        spot = torch.sigmoid((random.uniform(0.05, 0.2) - far.sqrt()) * 25)
        spot = 0.7 * spot * (random.uniform(0, 1) < 0.5)
        canvas = paint(canvas, random.colour((0, 1), (0.2, 0.8), (0.5, 0.9)), spot)
    return canvas


def photograph(canvas: Tensor, random: Randomness) -> Tensor:
    """Light, shadow, defocus and sensor noise over a finished scene; stays (B, 3, S, S)."""
    size = canvas.shape[-1]
    x, y = axes(size)
    warm, tint = random.uniform(-0.25, 0.25), random.uniform(-0.12, 0.12)
    light = torch.stack([warm, tint, -warm], 1).exp() * random.uniform(0.7, 1.3).unsqueeze(1)
    slope = 1 + random.uniform(-0.3, 0.3) * x + random.uniform(-0.3, 0.3) * y
    dark = random.uniform(0, 1) < 0.5
    shadow = 1 - 0.45 * dark * torch.sigmoid(6 * random.noise(size, cells=4)[:, 0])
    canvas = canvas * light * (slope * shadow).unsqueeze(1)
    small = functional.interpolate(canvas, size=(24, 24), mode="area")
    soft = functional.interpolate(small, size=(size, size), mode="bilinear")
    canvas = paint(canvas, soft, random.uniform(-0.7, 0.3).clamp(0, 1))
    grain = torch.randn(canvas.shape, generator=random.generator)
    return canvas + random.uniform(0, 0.02).unsqueeze(1) * grain


def draw_scenes(species: Tensor, *, size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Pictures uint8 (B, 3, size, size) of `species` (B, 7), and masks bool of visible flowers."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # for such small tensors, two threads need twice the time and more
    try:
        random = Randomness(len(species), seed)
        canvas = background(size, random)
        for _ in range(2):
            canvas = paint(canvas, *leaf(size, random, present=random.uniform(0, 1) < 0.5))
        traits = dict(zip(CHOICES, species.unbind(1), strict=True))
        front = traits | {key: random.uniform(*ends) for key, ends in POSE.items()}
        behind = traits | {key: random.uniform(*ends) for key, ends in POSE.items()}
        x, y = axes(size)
        down = (y - front["y"]).clamp(min=0)  # a bent stem from the flower's middle downwards
        bent = (x - front["x"] - random.uniform(-0.3, 0.3) * down**2).abs()
        green = random.colour((0.22, 0.36), (0.4, 0.7), (0.25, 0.5))
        canvas = paint(canvas, green, edge_cover(0.045 - bent) * (down > 0))
        direction = random.uniform(0, 2 * math.pi)
        behind["x"] = front["x"] + 0.75 * direction.cos()
        behind["y"] = front["y"] + 0.75 * direction.sin()
        behind["size"] = behind["size"] * 0.6
        flowers = torch.zeros(len(species), size, size)
        two = (random.uniform(0, 1) < 0.25).view(-1).nonzero().squeeze(1)
        behind = {key: value[two] for key, value in behind.items()}
        canvas[two], flowers[two] = bloom(canvas[two], behind)
        canvas, cover = bloom(canvas, front)
        colour, hidden = leaf(size, random, present=random.uniform(0, 1) < 0.2)
        canvas = photograph(paint(canvas, colour, hidden), random)
        masks = torch.maximum(flowers, cover) * (1 - hidden) > 0.5
        return (canvas.clamp(0, 1) * 255).round().to(torch.uint8), masks
    finally:
        torch.set_num_threads(threads)
