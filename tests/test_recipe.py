import dataclasses
from pathlib import Path

import pytest

from siamcal.errors import ConfigError, UnknownNameError
from siamcal.registry import recipes
from siamcal.settings import from_dict, override, parse_value, to_dict
from siamcal.training.recipe import Recipe, load_recipe

BASE = Recipe(name="example", dataset_options={"bias": 1.0})


def test_a_recipe_survives_json_exactly() -> None:
    import json

    assert from_dict(json.loads(json.dumps(to_dict(BASE))), Recipe) == BASE


@pytest.mark.parametrize("name", recipes.names())
def test_every_registered_recipe_is_named_like_its_function_and_round_trips(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert from_dict(to_dict(recipe), Recipe) == recipe


def test_settings_are_parsed_by_the_type_of_their_field() -> None:
    changed = override(
        BASE,
        ["epochs=1", "augmentation.crop_scale=0.8,1", "dataset_options.bias=0", "compile=true"],
    )
    assert changed.epochs == 1.0
    assert changed.augmentation.crop_scale == (0.8, 1.0)
    assert changed.dataset_options["bias"] == 0
    assert changed.compile is True
    assert dataclasses.replace(changed, epochs=3.0, compile=False).backbone == BASE.backbone


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("epoch=1", "epochs (now 3"),
        ("epochs=many", "takes float"),
        ("batch_size=1.5", "takes int"),
        ("batch_size", "key=value"),
        ("augmentation=1", "has parts"),
        ("seed.x=1", "has no parts"),
        ("task=gaze", "'intensity', 'detection'"),
        ("preprocessing.align=rigd", "'rigid'"),
        ("compile=maybe", "true or false"),
    ],
)
def test_a_wrong_setting_is_answered_with_what_is_allowed(setting: str, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        override(BASE, [setting])
    assert words in str(error.value)


def test_paths_are_taken_as_written() -> None:
    assert parse_value("runs/here", Path, "speed.output") == Path("runs/here")


def test_an_unknown_key_in_a_file_is_refused() -> None:
    with pytest.raises(ConfigError, match="no field 'learning_rat'"):
        from_dict({"name": "x", "learning_rat": 1e-3}, Recipe)


def test_toml_recipes_load(tmp_path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\nlearning_rate = 1e-5\n[augmentation]\nflip = 0.0\n')
    assert load_recipe(path).learning_rate == 1e-5
    assert load_recipe(path).augmentation.flip == 0.0
    with pytest.raises(ConfigError, match="Can't read"):
        load_recipe(tmp_path / "none.toml")


def test_an_unknown_name_shows_near_ones() -> None:
    with pytest.raises(UnknownNameError, match="No recipe is called 'disfa_intensit'"):
        load_recipe("disfa_intensit")
