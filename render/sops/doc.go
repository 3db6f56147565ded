// Package sops reads files that SOPS has encrypted with age keys.
//
// SOPS (https://github.com/getsops/sops) leaves the keys of a file as they are
// and encrypts its values. A random data key encrypts the values, and is itself
// in the file's metadata, encrypted for each recipient. The package decrypts the
// data key with the age identities that it is given, then each value
// (AES-256-GCM, with the path of the value as additional data), and compares
// the checksum over all values with the one in the metadata: nobody who lacks
// the data key can change, move, add or remove a value. YAML, JSON, dotenv and
// binary files are read. What the format is was learnt from SOPS 3.13; the
// files in testdata were made by it.
//
// The plaintext has its values where the encrypted file has them, line by line,
// so that what is said later about a line is true of the file that its author
// sees.
//
// It never writes, asks no other program and no network, and no error of it
// holds anything that was decrypted. Files that were encrypted with other than
// age keys are recognised: their error says so (Error.Program), and who can may
// have the sops program decrypt them and give the plaintext to Accept.
package sops
