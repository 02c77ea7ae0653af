"""Bad, odd and hostile input: the invariant, a list of cases, property tests, a fuzzer, and what they count."""
