//! Herald's CRD types, annotation and condition names.
