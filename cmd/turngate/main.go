// Turngate lets WebRTC web clients out of a restrictive network: a wss
// signaling reverse proxy and a log-report reverse proxy on 443, beside a TURN
// server on 3478 and 443.
package main

import "os"

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }
