.PHONY: help train test slow lint schema

help:
	@echo "make train   train what config.json describes"
	@echo "make test    run all tests but the long ones"
	@echo "make slow    run the long ones, two at a time"
	@echo "make lint    check style and types"
	@echo "make schema  write config.schema.json anew from the settings"

train:
	python train.py -c config.json

test:
	python -m pytest

# two at a time, of one thread each: threads of two programs would wait for each other
slow:
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive python -m pytest -m slow -n 2 --dist loadfile

lint:
	ruff check .
	flake8 .
	mypy

schema:
	python -m utils.config.settings > config.schema.json
