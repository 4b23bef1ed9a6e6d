"""All settings of the lesson, under the names that the lesson uses.

Change a value, save the file, restart the notebook's kernel, run all. Each value is checked before anything
starts (the rules are in `flowers_utils/config_check.py`). After a change to what a trained phase depends on,
that phase is trained anew, and its earlier files are kept under another name.
"""

# The recipe of training, shared by both phases.
TRAINING_CONFIG = {
    "batch_size": 32,  # photographs in one step; half of it takes less memory, and steps are noisier
    "learning_rate": 0.001,  # only without pretrained weights (section 18); the phases have their own
    "total_epochs": 50,  # always the sum of the epochs of both PHASES below: change them together
    "optimizer": "AdamW",  # one legal value, to be read; `make_optimizer` in training.py makes it
    "weight_decay": 0.01,  # how strongly each step pulls the weights towards 0, against overfitting
    "scheduler": "StepLR",  # one legal value, to be read: the learning rates fall in steps
    "step_size": 15,  # after every so many epochs of a phase, its learning rates are multiplied by
    "gamma": 0.1,  # this factor; in a phase of `step_size` epochs or fewer they never fall
}

# Phase 1 trains the new head alone: the backbone is frozen, so its ImageNet weights do not change.
# Phase 2 trains everything, the backbone at a tenth of the head's rate, because large steps would
# damage the pretrained weights. More epochs: add them to "total_epochs" above, too.
PHASES = {
    "phase1": {"epochs": 20, "head_lr": 0.001},
    "phase2": {"epochs": 30, "backbone_lr": 0.0001, "head_lr": 0.001},
}

# The notebook's knob RECIPE: "lesson" is what stands above; the others list what differs, so "fast"
# has the same head_lr in Phase 2. Section 19 compares them (`tests/benchmarks/study_recipe.py`).
RECIPES = {
    "lesson": {},
    "fast": {
        "phase1": {"epochs": 4, "head_lr": 0.003},
        "phase2": {
            "epochs": 6,
            "backbone_lr": 0.0003,  # three times the lesson's, because it falls towards 0 at the end
            "one_cycle": True,  # the learning rates rise and fall once; StepLR is not used
            "fit_head": True,  # at the end, by logistic regression on features of train and val
        },
        "sizes": {"use": 288},  # pixels in evaluation and in use (the lesson: those of a crop)
    },
    "best": {
        "phase1": {"epochs": 6, "head_lr": 0.003},
        "phase2": {"epochs": 16, "backbone_lr": 0.0003, "one_cycle": True, "fit_head": True},
        "sizes": {"resize": 288, "crop": 256, "use": 320},  # larger in training, too
    },
}

# The notebook's knob PROFILE: at most so many epochs of each phase, and photographs of each split.
PROFILES = {
    "full": {"epochs": None, "images": None},
    "quick": {"epochs": 3, "images": None},
    "smoke": {"epochs": 1, "images": 32},
}

# The pretrained network: resnet18, resnet50, efficientnet_b0, efficientnet_b3 or mobilenet_v2.
# resnet50 is larger than resnet18, the others are smaller. Practice flowers come with a resnet18 only.
BACKBONE = "resnet18"

# The networks that part two compares, on the same photographs. Leave out what takes too long.
COMPARISON = ("resnet18", "resnet50", "efficientnet_b0", "efficientnet_b3", "mobilenet_v2")

# Each time a photograph is used in training it is changed a little. 0 switches a change off; for the
# random crop set `resize` to the value of `crop`. More of it: less overfitting, slower learning.
AUGMENTATION = {
    "resize": 256,  # pixels; training sees a random square of `crop` pixels of it, evaluation sees all
    "crop": 224,  # pixels, never more than `resize`; half of both: a quarter of the work, less accurate
    "flip": 0.5,  # probability of a mirror image
    "rotation": 15.0,  # degrees, at most, to either side
    "brightness": 0.2,  # 0.2: between 80 % and 120 %
    "contrast": 0.2,
    "saturation": 0.2,
    "hue": 0.1,  # 0.1: a tenth of the colour circle to either side; 0.5 is any colour
}

# Mean and standard deviation of ImageNet's red, green and blue, on a scale of 0 to 1. The pretrained
# weights expect exactly these numbers: leave them alone.
NORMALIZATION = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}

# Oxford Flowers102. You may add addresses of your own (a school server, say) before the first one;
# the checksums (md5) see to it that the files are the right ones. Leave the rest alone.
DATASET = {
    "name": "Oxford Flowers102",
    "num_classes": 102,
    "splits": {"train": 1020, "val": 1020, "test": 6149},
    "base_urls": ("https://www.robots.ox.ac.uk/~vgg/data/flowers/102/",),
    "archive": {"name": "102flowers.tgz", "md5": "52808999861908f626f3c1f4e79d11fa"},
    "labels": {"name": "imagelabels.mat", "md5": "e0620be6f572b9609742df49c70aed4d"},
    "setid": {"name": "setid.mat", "md5": "a5357ecc9cb78c4bef273ce3793fc85c"},
}

# For results, and for decoded photographs (FLOWERS_DATA_DIR names the folder of the data set).
PATHS = {"models": "models", "cache": "data"}

# Top-1 with resnet18, on full-size photographs. `promised`: by this lesson. `published`: by others, on
# test (section 9). `measured`: by us, on val, with each seed, on 89 of the 102 species.
EXPECTED = {
    "phase1": {"promised": 0.75, "published": (0.815, 0.831), "measured": (0.766, 0.771)},
    "phase2": {"promised": 0.85, "published": (0.825, 0.841, 0.869), "measured": (0.863, 0.871)},
}
