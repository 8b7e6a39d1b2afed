"""How the stand-in's boxes differ from those of this plugin."""


def changed(prompt, found):
    if prompt == "square":
        return []
    part = {"red circle": 0.8, "blue star": 0.3}.get(prompt, 1.0)
    objects = [
        {
            "x_min": item.x_min,
            "y_min": item.y_min,
            "x_max": item.x_min + part * (item.x_max - item.x_min),
            "y_max": item.y_max,
        }
        for item in found
    ]
    if prompt == "yellow shape":
        objects.append({"x_min": 0.9, "y_min": 0.9, "x_max": 0.97, "y_max": 0.97})
    return objects
