"""Simulated patients with changing lesions whose identities, states and sizes are known at every time point."""

from meddift_lab.longitudinal.patient import LongitudinalPatient, drawn_patient, patient_of_scan
from meddift_lab.longitudinal.run import PatientResult, run_patients, summary
from meddift_lab.longitudinal.scores import Scores, score

__all__ = [
    "LongitudinalPatient",
    "PatientResult",
    "Scores",
    "drawn_patient",
    "patient_of_scan",
    "run_patients",
    "score",
    "summary",
]
