"""The everyday things that scenes show: what they are called, and which drawings show them."""

from dataclasses import dataclass

from training.scenes import SHAPES

# Things fall under these words too. "?" before one means that people would not agree.
_KINDS = {
    "animal": (
        "dog cat horse cow pig frog panda bear lion tiger monkey rabbit mouse fox penguin owl duck chicken fish "
        "whale shark octopus crab turtle snake snail bee butterfly spider elephant camel sheep"
    ),
    "bird": "penguin owl duck chicken",
    "fruit": "apple banana grapes watermelon strawberry cherries pineapple lemon orange peach pear ?tomato",
    "vegetable": "carrot corn ?tomato ?mushroom",
    "food": (
        "apple banana grapes watermelon strawberry cherries pineapple lemon orange peach pear carrot corn tomato "
        "mushroom bread cheese pizza hamburger hot_dog french_fries egg doughnut cookie cake ice_cream ?fish "
        "?chicken ?crab ?octopus"
    ),
    "vehicle": (
        "car taxi bus fire_engine ambulance truck tractor bicycle motorcycle airplane helicopter rocket sailboat "
        "ship train"
    ),
    "boat": "sailboat ship",
    "ball": "soccer_ball basketball",
    "flower": "sunflower rose",
    "car": "taxi ?ambulance",
    "truck": "fire_engine ?ambulance ?tractor",
    "bell": "?clock",
    "clock": "?watch",
}  # fmt: skip


@dataclass(frozen=True)
class Thing:
    """An everyday thing.

    `wordings` are pairs of singular and plural, the usual one first; `drawings` are names of icons.
    """

    name: str
    wordings: tuple[tuple[str, str], ...]
    drawings: tuple[str, ...]

    @property
    def plural(self) -> str:
        return self.wordings[0][1]


def _thing(name: str, drawings: str | None = None, *, plural: str = "", synonyms: str = "") -> Thing:
    name = name.replace("_", " ")
    words = [(name, plural.replace("_", " ") or plural_of(name))]
    words += [(word, plural_of(word)) for word in synonyms.replace("_", " ").split("|") if word]
    return Thing(name, tuple(words), tuple((drawings or name.replace(" ", "-")).split()))


def plural_of(noun: str) -> str:
    if noun.endswith(("s", "sh", "ch", "x")):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}s"


THINGS: tuple[Thing, ...] = (
    _thing("dog", "dog dog-face", synonyms="puppy"),
    _thing("cat", "cat cat-face", synonyms="kitten"),
    _thing("horse", "horse horse-face", synonyms="pony"),
    _thing("cow", "cow cow-face"),
    _thing("pig", "pig pig-face"),
    _thing("frog"),
    _thing("panda"),
    _thing("bear"),
    _thing("lion"),
    _thing("tiger", "tiger tiger-face"),
    _thing("monkey", "monkey monkey-face"),
    _thing("rabbit", "rabbit rabbit-face", synonyms="bunny"),
    _thing("mouse", "mouse mouse-face", plural="mice"),
    _thing("fox"),
    _thing("penguin"),
    _thing("owl"),
    _thing("duck"),
    _thing("chicken", synonyms="hen"),
    _thing("fish", "fish tropical-fish", plural="fish"),
    _thing("whale", "whale spouting-whale"),
    _thing("shark"),
    _thing("octopus"),
    _thing("crab"),
    _thing("turtle", synonyms="tortoise"),
    _thing("snake"),
    _thing("snail"),
    _thing("bee", "honeybee", synonyms="honeybee"),
    _thing("butterfly"),
    _thing("spider"),
    _thing("elephant"),
    _thing("camel", "camel two-hump-camel"),
    _thing("sheep", "ewe", plural="sheep"),
    _thing("apple", "red-apple green-apple"),
    _thing("banana"),
    _thing("grapes", plural="grapes"),
    _thing("watermelon"),
    _thing("strawberry"),
    _thing("cherries", plural="cherries"),
    _thing("pineapple"),
    _thing("lemon"),
    _thing("orange", "tangerine", synonyms="tangerine"),
    _thing("peach"),
    _thing("pear"),
    _thing("carrot"),
    _thing("tomato", plural="tomatoes"),
    _thing("corn", "ear-of-corn", plural="corn"),
    _thing("mushroom"),
    _thing("bread", plural="breads"),
    _thing("cheese", "cheese-wedge", plural="cheeses"),
    _thing("pizza"),
    _thing("hamburger", synonyms="burger|cheeseburger"),
    _thing("hot_dog", "hot-dog"),
    _thing("french_fries", plural="french_fries", synonyms="chips"),
    _thing("egg"),
    _thing("doughnut", synonyms="donut"),
    _thing("cookie", synonyms="biscuit"),
    _thing("cake", "birthday-cake shortcake"),
    _thing("ice_cream", "soft-ice-cream ice-cream"),
    _thing("cup", "hot-beverage teacup-without-handle", synonyms="mug"),
    _thing("wine_glass"),
    _thing("car", "automobile oncoming-automobile", synonyms="automobile"),
    _thing("taxi", "taxi oncoming-taxi", synonyms="cab"),
    _thing("bus", "bus oncoming-bus"),
    _thing("fire_engine", synonyms="fire_truck"),
    _thing("ambulance"),
    _thing("truck", "delivery-truck articulated-lorry", synonyms="lorry"),
    _thing("tractor"),
    _thing("bicycle", synonyms="bike"),
    _thing("motorcycle", synonyms="motorbike"),
    _thing("airplane", "airplane small-airplane", synonyms="plane|aeroplane"),
    _thing("helicopter"),
    _thing("rocket"),
    _thing("sailboat", synonyms="sailing_boat"),
    _thing("ship", "ship passenger-ship"),
    _thing("train", "locomotive train"),
    _thing("house", "house house-with-garden", synonyms="home"),
    _thing("tent"),
    _thing("stop_sign"),
    _thing("traffic_light", "vertical-traffic-light"),
    _thing("soccer_ball", synonyms="football"),
    _thing("basketball"),
    _thing("guitar"),
    _thing("drum"),
    _thing("trumpet"),
    _thing("key", "key old-key"),
    _thing("bell"),
    _thing("clock", "alarm-clock three-oclock ten-oclock"),
    _thing("watch", synonyms="wristwatch"),
    _thing("phone", "mobile-phone", synonyms="mobile_phone|cell_phone|smartphone"),
    _thing("laptop", synonyms="computer"),
    _thing("television", synonyms="tv"),
    _thing("camera", "camera camera-with-flash"),
    _thing("light_bulb", synonyms="lamp"),
    _thing("scissors", plural="scissors"),
    _thing("hammer"),
    _thing("umbrella", "umbrella umbrella-with-rain-drops"),
    _thing("backpack", synonyms="rucksack"),
    _thing("glasses", plural="glasses", synonyms="spectacles"),
    _thing("shoe", "running-shoe mans-shoe"),
    _thing("t-shirt", synonyms="shirt"),
    _thing("hat", "top-hat"),
    _thing("crown"),
    _thing("book", "closed-book green-book blue-book"),
    _thing("pencil"),
    _thing("gift", "wrapped-gift", synonyms="present"),
    _thing("balloon"),
    _thing("chair", "seat", synonyms="seat"),
    _thing("tree", "deciduous-tree evergreen-tree"),
    _thing("cactus"),
    _thing("sunflower"),
    _thing("rose"),
)  # fmt: skip
THING_OF_NAME = {thing.name: thing for thing in THINGS}

# All names of objects; a class of the training-only head is a place in this tuple.
NAMES: tuple[str, ...] = (*SHAPES, *THING_OF_NAME)

# Names that people could mix up: prompts for what is not there prefer them.
LOOK_ALIKES = tuple(
    frozenset(group.replace("_", " ") for group in line.split())
    for line in (
        "dog fox bear", "cat tiger lion", "horse cow camel", "panda bear", "mouse rabbit elephant",
        "duck chicken penguin owl", "whale shark fish", "octopus crab spider", "bee butterfly",
        "snake snail turtle", "apple peach tomato cherries orange", "lemon banana pear", "strawberry pineapple",
        "carrot corn", "doughnut cookie pizza", "cake bread cheese", "cup wine_glass ice_cream",
        "car taxi bus ambulance truck fire_engine tractor train", "bicycle motorcycle",
        "airplane helicopter rocket", "sailboat ship", "house tent", "soccer_ball basketball circle",
        "guitar trumpet", "clock watch", "phone laptop television camera", "hammer key scissors pencil",
        "hat crown bell", "tree cactus", "sunflower rose", "book gift phone", "square television gift",
        "triangle tent pizza", "star sunflower",
    )
)  # fmt: skip


def kinds_of(name: str) -> frozenset[str]:
    """The words under which a thing falls beside its own name, such as "animal"."""
    return _KINDS_OF_NAME.get(name, frozenset())


def doubtful_kinds_of(name: str) -> frozenset[str]:
    """Kinds about which people would not agree: is a tomato a fruit?"""
    return _DOUBTFUL_OF_NAME.get(name, frozenset())


def _by_name(doubtful: bool) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for kind, names in _KINDS.items():
        for name in names.split():
            if name.startswith("?") == doubtful:
                found.setdefault(name.lstrip("?").replace("_", " "), set()).add(kind)
    return {name: frozenset(kinds) for name, kinds in found.items()}


_KINDS_OF_NAME, _DOUBTFUL_OF_NAME = _by_name(doubtful=False), _by_name(doubtful=True)
# Words for several names; "car" and "truck" are names themselves.
KINDS: tuple[str, ...] = tuple(kind for kind in _KINDS if kind not in THING_OF_NAME)
