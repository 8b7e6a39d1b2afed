"""Receives the alerts of `alert_when_present` on http://127.0.0.1:8000/alert and prints them."""

import json
from http.server import BaseHTTPRequestHandler, HTTPServer


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        alert = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        picture = alert["picture_jpeg_base64"]
        print(f"Alert: {alert['counts']}, with a picture of {len(picture) * 3 // 4} bytes", flush=True)
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Do not log the requests."""


if __name__ == "__main__":
    HTTPServer(("127.0.0.1", 8000), Receiver).serve_forever()
