"""Loans as what four models learn from, and as applications to score.

What a lender knows of an applicant becomes numbers; what it answered (rate, term) is a label, and the rest of its answer stays out.
"""
import argparse
import os

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

BASE = "/opt/ml/processing"
SCENARIOS = {
    "Purchase": ["major_purchase", "house", "car", "home_improvement"],
    "Refinance": ["debt_consolidation", "credit_card"],
}
NUMBERS = [
    "loan_amount", "emp_length", "annual_income", "debt_to_income", "delinq_2y", "inquiries_last_12m", "total_credit_lines",
    "open_credit_lines", "total_credit_limit", "total_credit_utilized", "accounts_opened_24m", "num_satisfactory_accounts",
    "num_mort_accounts", "account_never_delinq_percent", "tax_liens", "public_record_bankrupt", "earliest_credit_line",
]
KINDS = ["homeownership", "verified_income", "application_type", "loan_purpose"]
LABELS = {"Rate": lambda loans: loans["interest_rate"], "Term": lambda loans: (loans["term"] == 60).astype(int)}


def write(table, *path):
    file = os.path.join(BASE, *path)
    os.makedirs(os.path.dirname(file), exist_ok=True)
    table.to_csv(file, header=False, index=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=4, help="files that the applications to score are spread over")
    args = parser.parse_args()

    everything = pd.read_csv(os.path.join(BASE, "loans", "loans.csv"))
    for scenario, purposes in SCENARIOS.items():
        loans = everything[everything["loan_purpose"].isin(purposes)]
        features = pd.concat([loans[NUMBERS], pd.get_dummies(loans[KINDS], dtype=int)], axis=1)
        known, new = train_test_split(loans.index, test_size=0.25, random_state=1)
        train, rest = train_test_split(known, test_size=0.3, random_state=1)
        validation, test = train_test_split(rest, test_size=0.5, random_state=1)
        for target, label in LABELS.items():
            rows = pd.concat([label(loans), features], axis=1)
            for part, index in (("train", train), ("validation", validation), ("test", test)):
                write(rows.loc[index], scenario + target, part, f"{part}.csv")
        numbered = pd.concat([loans["rownames"], features], axis=1).loc[new]
        for number, index in enumerate(np.array_split(np.arange(len(numbered)), args.files)):
            write(numbered.iloc[index], f"{scenario}Applications", f"part-{number}.csv")
        print(f"{scenario}: {len(loans)} loans, {features.shape[1]} features, {len(new)} applications to score")
