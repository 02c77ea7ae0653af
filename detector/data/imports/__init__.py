"""COCO roots from other tools' exports: a reader per form, groups, splits. May import detector.data.coco and .fix."""
