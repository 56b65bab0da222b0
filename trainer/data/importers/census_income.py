"""UCI Census-Income (KDD): two tasks on one person, the benchmark of the MMoE paper.

Ma et al., KDD 2018, tables 1 and 2. Source: census-income.data[.gz] and census-income.test[.gz], 42 columns without a
header, from https://archive.ics.uci.edu/dataset/117. The train file is the training part; the rows of the test file go
to validation and test at random, half each, the same at every run.

Labels, float32, 0 or 1:
    income_over_50k, never_married
Numbers, int32:
    age, wage_per_hour, capital_gains, capital_losses, dividends, persons_worked_for, weeks_worked
Strings:
    class_of_worker, industry_code, occupation_code, school_enrollment, major_industry, major_occupation, race,
    hispanic_origin, sex, union_member, unemployment_reason, employment_status, tax_filer_status, previous_region,
    previous_state, household_detail, household_summary, migration_msa, migration_region, migration_within_region,
    same_house, previous_sunbelt, parents_present, father_country, mother_country, own_country, citizenship,
    own_business, veterans_questionnaire, veterans_benefits, year

`education` and `marital_status` (from which never_married is made) are left out, as the paper does, and so is
`instance_weight`, on which UCI says not to train: what is not in the files cannot leak into a model.
"""

import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv

from configs.choice_settings import ChoiceSettings
from configs.errors import UserError
from trainer.data.dataset.write import whole_or_absent, write_folder
from trainer.data.importers import Importer, find_file, print_summary

COLUMNS = (
    "age",
    "class_of_worker",
    "industry_code",
    "occupation_code",
    "education",
    "wage_per_hour",
    "school_enrollment",
    "marital_status",
    "major_industry",
    "major_occupation",
    "race",
    "hispanic_origin",
    "sex",
    "union_member",
    "unemployment_reason",
    "employment_status",
    "capital_gains",
    "capital_losses",
    "dividends",
    "tax_filer_status",
    "previous_region",
    "previous_state",
    "household_detail",
    "household_summary",
    "instance_weight",
    "migration_msa",
    "migration_region",
    "migration_within_region",
    "same_house",
    "previous_sunbelt",
    "persons_worked_for",
    "parents_present",
    "father_country",
    "mother_country",
    "own_country",
    "citizenship",
    "own_business",
    "veterans_questionnaire",
    "veterans_benefits",
    "weeks_worked",
    "year",
    "income",
)
NUMBERS = (
    "age",
    "wage_per_hour",
    "capital_gains",
    "capital_losses",
    "dividends",
    "persons_worked_for",
    "weeks_worked",
)
LEFT_OUT = ("education", "marital_status", "instance_weight", "income")
LABELS = ("income_over_50k", "never_married")
INCOMES, OVER_50K = {"- 50000.", "50000+."}, "50000+."
NEVER_MARRIED = "Never married"
SPLIT_SEED = 20180819
ROWS_PER_FILE = 50_000


def build(settings: ChoiceSettings) -> Importer:
    return prepare


def prepare(source: str, out: str) -> None:
    """Write the parts described above."""
    train, held_out = (_read(_find(source, f"census-income.{kind}")) for kind in ("data", "test"))
    order = np.random.Generator(np.random.Philox(SPLIT_SEED)).random(held_out.num_rows).argsort(kind="stable")
    half = held_out.num_rows // 2
    parts = {
        "train": train,
        "validation": held_out.take(np.sort(order[:half])),
        "test": held_out.take(np.sort(order[half:])),
    }
    with whole_or_absent(out) as staging:
        for part, table in parts.items():
            write_folder(table, staging / part, ROWS_PER_FILE)
    print_summary(f"census-income: wrote {out}", parts, LABELS)


def _find(source: str, name: str) -> Path:
    return find_file(source, f"{name}.gz", name, download="https://archive.ics.uci.edu/dataset/117")


def _read(path: Path) -> pa.Table:
    """All columns of one original file that are written, labels first."""
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    types = {name: pa.int32() if name in NUMBERS else pa.string() for name in COLUMNS}
    # A blank follows every comma: numbers are parsed after it is gone.
    text = text.replace(b", ", b",")
    try:
        raw = csv.read_csv(
            pa.BufferReader(text),
            read_options=csv.ReadOptions(column_names=list(COLUMNS)),
            convert_options=csv.ConvertOptions(column_types=types, strings_can_be_null=False),
        )
    except pa.ArrowInvalid as error:
        raise UserError(f"{path} is not a census-income file: {error}\ndownload it again") from error
    unknown = sorted(set(raw.column("income").unique().to_pylist()) - INCOMES)
    if unknown:
        raise UserError(
            f"{path}: column 42 (income) is {unknown[0]!r}, not one of {', '.join(sorted(INCOMES))}\n"
            "check that the file is the original one"
        )
    labels = {
        "income_over_50k": _flag(raw.column("income"), OVER_50K),
        "never_married": _flag(raw.column("marital_status"), NEVER_MARRIED),
    }
    inputs = {name: raw.column(name) for name in COLUMNS if name not in LEFT_OUT}
    return pa.table(labels | inputs)


def _flag(values: pa.ChunkedArray, positive: str) -> pa.Array:
    return pa.array((values.to_numpy() == positive).astype(np.float32))
