import Foundation
import Testing

@testable import KruxCapabilities

/// Messages that somebody sent to hold up whoever reads them: what a few kilobytes say takes no seconds.
@Suite struct MailMessageTests {
    private func repeated(_ text: String, _ count: Int) -> [UInt8] {
        Array((0..<count).map { _ in Array(text.utf8) }.joined())
    }

    private func html(_ body: [UInt8]) -> [UInt8] { Array("Content-Type: text/html\r\n\r\n".utf8) + body }

    @Test(arguments: 0..<14) func readingEnds(_ kind: Int) {
        let message: [UInt8] =
            switch kind {
            case 0: html(repeated("<script>", 100_000))
            case 1: html(repeated("<", 500_000))
            case 2: html(repeated("<style></styl", 50_000))
            case 3: Array("Date: ".utf8) + repeated("(", 200_000) + Array("\r\n\r\n".utf8)
            case 4: Array("Subject: ".utf8) + repeated("=?utf-8?q?", 50_000) + Array("\r\n\r\n".utf8)
            case 5: repeated("X: y\r\n", 200_000)
            case 6: Array("Subject: x\r\n".utf8) + repeated(" y\r\n", 200_000)
            case 7: Array("\r\n".utf8) + repeated("x\r\n", 300_000)
            case 8:
                Array("Content-Type: multipart/mixed; boundary=b\r\n\r\n".utf8) + repeated("--b\r\n\r\nx\r\n", 50_000)
            case 9:
                Array("Content-Type: text/plain; ".utf8) + repeated("a*1*=x; ", 20_000) + Array("\r\n\r\n".utf8)
            case 10: Array("From: ".utf8) + repeated("\",\" ", 100_000) + Array("\r\n\r\n".utf8)
            case 11:
                Array(
                    (0..<2000).map { Array("Content-Type: multipart/mixed; boundary=b\($0)\r\n\r\n--b\($0)\r\n".utf8) }
                        .joined())
            case 12: Array("Content-Transfer-Encoding: base64\r\n\r\n".utf8) + repeated("QUJD=", 100_000)
            default: Array("Content-Transfer-Encoding: quoted-printable\r\n\r\n".utf8) + repeated("=", 500_000)
            }
        let begun = ContinuousClock.now
        let read = MailMessage(message)
        let seconds = (ContinuousClock.now - begun) / .seconds(1)
        // What takes the square of that many steps takes minutes.
        #expect(seconds < 30, "\(kind): \(seconds) s")
        #expect(read.text.utf8.count <= message.count + 100 && read.subject.utf8.count <= 4096)
    }

    @Test func encodedWordsAreRead() {
        for (text, expected) in [
            ("=?utf-8?Q?Gr=C3=BC=C3=9Fe?=", "Grüße"), ("=?ISO-8859-1?B?R3L832U=?= rest", "Grüße rest"),
            ("a =?utf-8?q?b?= =?utf-8?q?c_d?= e", "a bc d e"), ("=?utf-8?x?b?=", "=?utf-8?x?b?="),
            ("=?utf-8?q?unended", "=?utf-8?q?unended"), ("plain", "plain"), ("=?utf-8*en?q?x?=", "x"), ("", ""),
            ("tab\u{1}x", "tab x"),
        ] {
            #expect(MailMessage.words(text) == expected)
        }
    }

    @Test func textOfHTMLIsLeft() {
        let message = MailMessage(
            html(
                Array(
                    "<html><style>p{}</style><p>One &amp; <b>two</b></p><script>if (a < b) x()</script><br>three".utf8))
        )
        #expect(message.text == "One & two\nthree")
    }

    @Test func foldersAreEncoded() {
        for (name, wire) in [("INBOX", "INBOX"), ("Entwürfe", "Entw&APw-rfe"), ("A&B", "A&-B"), ("日本語", "&ZeVnLIqe-")] {
            #expect(IMAPClient.encoded(name) == Array(wire.utf8))
            #expect(IMAPClient.decoded(Array(wire.utf8)) == name)
        }
    }
}
